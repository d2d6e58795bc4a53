"""Brax environments: `brax:NAME` on the device driver.

Importing this module imports Brax, which takes seconds; nothing else here does.
"""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from brax import envs, fluid

BACKENDS = ("generalized", "spring", "positional", "mjx")
"""Brax's physics pipelines, the one nearest to MuJoCo first."""


def repair_fluid(module: Any) -> None:
    """Let `brax.fluid` run on JAX without `jnp.clip(..., a_min=...)`.

    Swimmer, the one environment in a fluid, raises TypeError in brax 0.14.2 on JAX
    0.10. The module's own name for `jax.numpy` gets a copy of that namespace whose
    `clip` takes the old argument; `jax.numpy` itself is left alone. Does nothing where
    the module's source no longer uses the argument.
    """
    if "a_min=" in inspect.getsource(module):
        old_numpy = SimpleNamespace(**vars(jnp))
        old_numpy.clip = lambda x, a_min: jnp.clip(x, min=a_min)
        module.jp = old_numpy


repair_fluid(fluid)


@dataclass(frozen=True)
class BraxEnvironment:
    """An environment of Brax's registry, as a `DeviceEnvironment`.

    It uses none of Brax's wrappers: the engine cuts episodes at the horizon and draws
    a new first state for each, where Brax's AutoResetWrapper restores a cached one.

    Attributes:
        name: A name that `brax.envs.get_environment` knows, such as "ant".
        backend: One of `BACKENDS`. None is the default of the environment's own
            constructor: "generalized", for each that Brax ships. Swimmer runs on no
            other one, and "fast" has no physics and ignores it.

    Raises:
        ValueError: If the name or the backend is unknown, the environment refuses the
            backend, or its observation is not one vector.
    """

    name: str
    backend: str | None = None

    horizon = 1000
    """`brax.envs.create`'s default, and the limit that each docstring in `brax.envs`
    gives, reacher's and pusher's too (Gymnasium cuts those at 50 and 100)."""

    def __post_init__(self) -> None:
        _require_known("name", self.name, envs._envs)  # Brax has no public list.
        if self.backend is not None:
            _require_known("backend", self.backend, BACKENDS)
        observation = self._first.obs
        if len(getattr(observation, "shape", ())) != 1:
            raise ValueError(
                f"name={self.name!r} observes {jax.tree.map(jnp.shape, observation)}, "
                "but a policy needs one vector; register a version of the environment "
                "that concatenates its observation"
            )

    @property
    def observation_size(self) -> int:
        return self._first.obs.shape[0]

    @property
    def action_low(self) -> np.ndarray:
        """-1 for each actuator. # shape=(A,), dtype=float32

        Brax's actions lie in [-1, 1] in every environment: where the actuators' range
        is another one (humanoid .4, inverted_pendulum 3, pusher 2), `step` scales to
        it. Controls beyond are clipped by the physics but charged in full by the
        environments' control costs.
        """
        return -self.action_high

    @property
    def action_high(self) -> np.ndarray:
        """1 for each actuator; see `action_low`. # shape=(A,), dtype=float32"""
        return np.ones(self._environment.action_size, np.float32)

    def reset(self, key: jax.Array) -> tuple[envs.State, jax.Array]:
        """First state of an episode and its observation, (O,) float32."""
        with _default_promotion():
            state = self._environment.reset(key)
        return self._observed(state)

    def step(
        self, state: envs.State, action: jax.Array
    ) -> tuple[envs.State, jax.Array, jax.Array, jax.Array]:
        """State, observation (O,) float32, reward () float32, terminated () bool."""
        # Brax writes metrics into the state that it is given, hence the copy.
        state = jax.tree.map(lambda leaf: leaf, state)
        with _default_promotion():
            state = self._environment.step(state, action)
        state, observation = self._observed(state)
        reward = jnp.asarray(state.reward, jnp.float32)
        return state, observation, reward, jnp.asarray(state.done, jnp.float32) > 0.5

    @cached_property
    def _environment(self) -> envs.Env:
        keywords = {} if self.backend is None else {"backend": self.backend}
        try:
            return envs.get_environment(self.name, **keywords)
        except ValueError as error:
            raise ValueError(
                f"backend={self.backend!r} is refused by Brax's {self.name!r}: {error} "
                "Use backend=None, the environment's own default"
            ) from error

    @cached_property
    def _first(self) -> envs.State:
        """Shapes and dtypes of a first state."""
        with _default_promotion():
            return jax.eval_shape(self._environment.reset, jax.random.key(0))

    def _observed(self, state: envs.State) -> tuple[envs.State, jax.Array]:
        """`state` in the dtypes of `_first`, none of them weak, and its observation.

        Brax's steps return Python floats where its resets return arrays.
        """
        state = jax.tree.map(
            lambda leaf, first: jnp.asarray(leaf, first.dtype), state, self._first
        )
        return state, jnp.asarray(state.obs, jnp.float32)


@contextmanager
def _default_promotion() -> Iterator[None]:
    """JAX's default promotion, which Brax relies on, whatever the caller has set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _require_known(field: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        names = sorted(known, key=lambda k: -SequenceMatcher(None, value, k).ratio())
        raise ValueError(
            f"{field}={value!r} is unknown to Brax; use one of {', '.join(names)}"
        )
