"""Environments of Brax for the device driver.

Importing this module imports Brax, which takes seconds; no other module imports it.
"""

import inspect
import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.interface import trace
from pes_rl.envs.jax_adapters import default_promotion, with_dtypes_of
from pes_rl.envs.mujoco.messages import warnings_logged
from pes_rl.envs.names import unknown_name

# On import MJX prints that Warp is missing, which is not used here.
with redirect_stdout(io.StringIO()):
    from brax import envs, fluid
    from brax.envs.wrappers import training

BACKENDS = ("generalized", "spring", "positional", "mjx")
"""Brax's physics pipelines."""


def repair_fluid(module: Any) -> None:
    """Make `brax.fluid` work with a JAX whose `jnp.clip` has no argument `a_min`.

    Without it Brax 0.14.2's Swimmer, the only environment in a fluid, raises TypeError
    on JAX 0.10. The name `jp` in the module becomes a copy of `jax.numpy` whose `clip`
    takes the old argument. `jax.numpy` itself does not change, nor does a module whose
    source no longer uses the argument.
    """
    if "a_min=" in inspect.getsource(module):
        older_numpy = SimpleNamespace(**vars(jnp))
        older_numpy.clip = lambda x, a_min: jnp.clip(x, min=a_min)
        module.jp = older_numpy


repair_fluid(fluid)


@dataclass(frozen=True)
class BraxEnvironment:
    """A `DeviceEnvironment` from Brax's registry, or made by the user.

    It uses none of Brax's wrappers: the engine ends episodes at the horizon and draws a
    new first state for each, where Brax's AutoResetWrapper restores a cached one.

    Attributes:
        environment: Name in `brax.envs.get_environment`, such as "ant", or an object.
        backend: One of `BACKENDS`, for a name. None is the default of the environment's
            own constructor, which is "generalized", the closest to MuJoCo, for all of
            Brax's environments. Swimmer accepts no other; "fast" has no physics and is
            the same with each.
        env_kwargs: Other arguments of that constructor, for a name.

    Raises:
        ValueError: If the name or the backend is unknown, the environment does not
            accept the arguments, its observation is not one vector, or it is wrapped
            for Brax's own training.
    """

    environment: str | envs.Env
    backend: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)

    on_device = True
    horizon = 1000
    """The default of `brax.envs.create` and `brax.training.learner`, and the limit in
    the docstring of each environment with one, reacher and pusher among them."""

    def __post_init__(self) -> None:
        if isinstance(self.environment, str):
            if self.environment not in envs._envs:  # Brax has no public list of them.
                raise ValueError(
                    unknown_name("environment", self.environment, [*envs._envs])
                )
        else:
            _refuse_training_wrappers(self.environment)
        if self.backend not in (None, *BACKENDS):
            raise ValueError(unknown_name("backend", self.backend, [*BACKENDS]))
        observation = self._first.obs
        if len(getattr(observation, "shape", ())) != 1:
            raise ValueError(
                f"{self._name} observes {jax.tree.map(jnp.shape, observation)}, but a "
                "policy takes one vector; register a version that concatenates them"
            )

    @property
    def observation_size(self) -> int:
        return self._first.obs.shape[0]

    @property
    def action_low(self) -> np.ndarray:
        """-1 for each actuator, as float32 [A].

        Actions of all Brax environments lie in [-1, 1]. Where the actuators have
        another range (humanoid and humanoidstandup .4, pusher 2, inverted_pendulum 3),
        the environment scales the action. Of an action beyond, the physics clips the
        control, but the control cost counts all of it.
        """
        return -self.action_high

    @property
    def action_high(self) -> np.ndarray:
        """1 for each actuator, as float32 [A]; see `action_low`."""
        return np.ones(self._environment.action_size, np.float32)

    @property
    def system(self) -> Any:
        """Brax's description of the bodies; None for an environment without any."""
        return getattr(self._environment, "sys", None)

    @property
    def step_seconds(self) -> float:
        """Simulated time of a step, in seconds; needs a `system`."""
        environment: Any = self._environment
        return float(environment.dt)

    def reset(self, key: jax.Array) -> tuple[envs.State, jax.Array]:
        """First state of an episode and its observation, float32 [O]."""
        with default_promotion():
            state = self._environment.reset(key)
        return self._with_fixed_dtypes(state)

    def step(
        self, state: envs.State, action: jax.Array
    ) -> tuple[envs.State, jax.Array, jax.Array, jax.Array]:
        """State, observation float32 [O], reward float32 and terminated bool."""
        copy = jax.tree.map(lambda leaf: leaf, state)  # Brax writes into its metrics.
        with default_promotion():
            after = self._environment.step(copy, action)
        reward = jnp.asarray(after.reward, jnp.float32)
        terminated = jnp.asarray(after.done, jnp.float32) > 0.5
        return *self._with_fixed_dtypes(after), reward, terminated

    @property
    def _name(self) -> str:
        if isinstance(self.environment, str):
            return repr(self.environment)
        return type(self.environment).__qualname__

    @cached_property
    def _environment(self) -> envs.Env:
        if not isinstance(self.environment, str):
            return self.environment
        keywords = dict(self.env_kwargs)
        if self.backend is not None:
            keywords["backend"] = self.backend
        try:
            with warnings.catch_warnings(), warnings_logged():
                # The warning says that Brax is no longer maintained.
                warnings.filterwarnings("ignore", "Brax System", UserWarning)
                return envs.get_environment(self.environment, **keywords)
        except ValueError as error:
            raise ValueError(
                f"backend={self.backend!r} does not fit {self._name}; use "
                f"backend=None, the environment's own default (Brax says: {error})"
            ) from error
        except TypeError as error:
            raise ValueError(
                f"{self._name} does not take {keywords}: {error}"
            ) from error

    @cached_property
    def _first(self) -> Any:
        """Shapes and dtypes of the state that `reset` returns."""
        with default_promotion():
            what = f"{self._name}: reset(key)"
            return trace(what, self._environment.reset, jax.random.key(0))

    def _with_fixed_dtypes(self, state: envs.State) -> tuple[envs.State, jax.Array]:
        """The state with the dtypes of `reset`, and its observation."""
        state = with_dtypes_of(self._first, state)
        return state, jnp.asarray(state.obs, jnp.float32)


def _refuse_training_wrappers(environment: envs.Env) -> None:
    """Raise `ValueError` for an environment that resets itself or is a batch."""
    inner = environment
    while isinstance(inner, envs.Wrapper):
        if type(inner).__module__ == training.__name__:
            raise ValueError(
                f"this environment is in Brax's {type(inner).__name__}, but episodes "
                "end and begin in pes_rl; pass environment.unwrapped, or "
                "brax.envs.get_environment(NAME) in place of brax.envs.create"
            )
        inner = inner.env
