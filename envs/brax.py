"""Brax environments on the device driver.

Importing this module imports Brax, which takes seconds; no other module does.
"""

import inspect
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.names import unknown_name

# On import MJX prints that it has no Warp, which it only needs on request.
with redirect_stdout(io.StringIO()):
    from brax import envs, fluid

BACKENDS = ("generalized", "spring", "positional", "mjx")
"""Brax's physics pipelines."""


def repair_fluid(module: Any) -> None:
    """Let `brax.fluid` run on a JAX whose `jnp.clip` has no `a_min`.

    Brax 0.14.2's Swimmer, the one environment in a fluid, raises TypeError on JAX 0.10.
    The module's own name for `jax.numpy` becomes a copy of that namespace whose `clip`
    takes the old argument; `jax.numpy` itself is left alone, and so is a module whose
    source no longer uses the argument.
    """
    if "a_min=" in inspect.getsource(module):
        older_numpy = SimpleNamespace(**vars(jnp))
        older_numpy.clip = lambda x, a_min: jnp.clip(x, min=a_min)
        module.jp = older_numpy


repair_fluid(fluid)


@dataclass(frozen=True)
class BraxEnvironment:
    """An environment of Brax's registry, as a `DeviceEnvironment`.

    None of Brax's wrappers is used: the engine cuts episodes at the horizon and draws
    a new first state for each, where Brax's AutoResetWrapper restores a cached one.

    Attributes:
        name: What `brax.envs.get_environment` calls it, such as "ant".
        backend: One of `BACKENDS`. None is the default of the environment's own
            constructor: "generalized", the nearest to MuJoCo's original, for all that
            Brax ships. Swimmer refuses the others; "fast" has no physics, so it runs
            the same on each.

    Raises:
        ValueError: If the name or the backend is unknown, the environment refuses the
            backend, or its observation is not one vector.
    """

    name: str
    backend: str | None = None

    on_device = True
    horizon = 1000
    """The default of `brax.envs.create` and `brax.training.learner`, and the limit in
    the docstring of each environment with one, reacher and pusher among them."""

    def __post_init__(self) -> None:
        if self.name not in envs._envs:  # Brax has no public list of its names.
            raise ValueError(unknown_name("environment", self.name, [*envs._envs]))
        if self.backend not in (None, *BACKENDS):
            raise ValueError(unknown_name("backend", self.backend, [*BACKENDS]))
        observation = self._first.obs
        if len(getattr(observation, "shape", ())) != 1:
            raise ValueError(
                f"{self.name!r} observes {jax.tree.map(jnp.shape, observation)}, but a "
                "policy takes one vector; register a version that concatenates them"
            )

    @property
    def observation_size(self) -> int:
        return self._first.obs.shape[0]

    @property
    def action_low(self) -> np.ndarray:
        """-1 for each actuator, as float32 [A].

        Actions lie in [-1, 1] in all of Brax. Where the actuators' range is another
        one (humanoid and humanoidstandup .4, pusher 2, inverted_pendulum 3), the
        environment scales to it. Beyond, the physics clips the control while the
        control cost still charges all of it.
        """
        return -self.action_high

    @property
    def action_high(self) -> np.ndarray:
        """1 for each actuator, as float32 [A]; see `action_low`."""
        return np.ones(self._environment.action_size, np.float32)

    @property
    def system(self) -> Any:
        """Brax's description of the bodies; None where there are none ("fast")."""
        return getattr(self._environment, "sys", None)

    @property
    def step_seconds(self) -> float:
        """Simulated time of a step, seconds; of an environment with a `system`."""
        environment: Any = self._environment
        return float(environment.dt)

    def reset(self, key: jax.Array) -> tuple[envs.State, jax.Array]:
        """First state of an episode and its observation, float32 [O]."""
        with _default_promotion():
            state = self._environment.reset(key)
        return self._settled(state)

    def step(
        self, state: envs.State, action: jax.Array
    ) -> tuple[envs.State, jax.Array, jax.Array, jax.Array]:
        """State, observation float32 [O], reward float32 and terminated bool."""
        own = jax.tree.map(lambda leaf: leaf, state)  # Brax writes into its metrics.
        with _default_promotion():
            after = self._environment.step(own, action)
        reward = jnp.asarray(after.reward, jnp.float32)
        terminated = jnp.asarray(after.done, jnp.float32) > 0.5
        return *self._settled(after), reward, terminated

    @cached_property
    def _environment(self) -> envs.Env:
        keywords = {} if self.backend is None else {"backend": self.backend}
        try:
            with warnings.catch_warnings():
                # That Brax is no longer maintained; its users have chosen it.
                warnings.filterwarnings("ignore", "Brax System", UserWarning)
                return envs.get_environment(self.name, **keywords)
        except ValueError as error:
            raise ValueError(
                f"backend={self.backend!r} does not fit {self.name!r}; use "
                f"backend=None, the environment's own default (Brax says: {error})"
            ) from error

    @cached_property
    def _first(self) -> Any:
        """Shapes and dtypes of a first state."""
        with _default_promotion():
            return jax.eval_shape(self._environment.reset, jax.random.key(0))

    def _settled(self, state: envs.State) -> tuple[envs.State, jax.Array]:
        """`state` in the dtypes of a first state, none of them weak; its observation.

        Brax returns a Python number here and there where it first gave an array.
        """
        state = jax.tree.map(
            lambda leaf, first: jnp.asarray(leaf, first.dtype), state, self._first
        )
        return state, jnp.asarray(state.obs, jnp.float32)


@contextmanager
def _default_promotion() -> Iterator[None]:
    """JAX's default promotion of dtypes and ranks, on which Brax's code relies."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
