"""Environments of MuJoCo Playground for the device driver: `playground:NAME`.

Importing this module imports Playground, an optional package; no other module imports
it.
"""

# Playground is an optional dependency.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import io
import subprocess
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.interface import trace
from pes_rl.envs.jax_adapters import (
    as_vector,
    default_promotion,
    vector_size,
    with_dtypes_of,
)
from pes_rl.envs.names import unknown_name

# On import MJX may print what of Warp is missing.
with redirect_stdout(io.StringIO()):
    from mujoco_playground import MjxEnv, registry

BACKENDS = ("jax", "warp")
"""Implementations of MJX; Warp needs an NVIDIA GPU."""


@dataclass(frozen=True)
class PlaygroundEnvironment:
    """A `DeviceEnvironment` of MuJoCo Playground.

    It uses none of Playground's training wrappers: the engine ends episodes at the
    horizon, the configuration's `episode_length`, and draws a new first state for each,
    where the wrappers restore a cached one. The wrappers' `action_repeat` is not
    applied; it is 1 in all but two environments.

    Actions lie in [-1, 1], as those of the policies that Playground trains. Of an
    observation that is a dictionary the policy sees the entry "state", as Playground's
    own agents do; where there is none, all entries as one vector, see `as_vector`.

    Attributes:
        environment: Playground's name, such as "CheetahRun", or an object.
        backend: One of `BACKENDS`, for a name; None takes Warp on a GPU and JAX
            elsewhere.
        env_kwargs: Values for the configuration of a name, such as episode_length;
            dots lead into it, as in "reward_config.scales.energy".

    Raises:
        ValueError: If the name, the backend or a setting is unknown, or the files of
            robots that the environment needs cannot be downloaded.
    """

    environment: str | MjxEnv
    backend: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)

    on_device = True

    def __post_init__(self) -> None:
        known = list(registry.ALL_ENVS)
        if isinstance(self.environment, str) and self.environment not in known:
            raise ValueError(
                unknown_name("environment of Playground", self.environment, known)
            )
        if self.backend not in (None, *BACKENDS):
            raise ValueError(unknown_name("backend", self.backend, [*BACKENDS]))
        _ = self._first

    @property
    def observation_size(self) -> int:
        return vector_size(_policy_part(self._first.obs))

    @property
    def action_low(self) -> np.ndarray:
        """-1 for each actuator, as float32 [A]."""
        return -self.action_high

    @property
    def action_high(self) -> np.ndarray:
        """1 for each actuator, as float32 [A]."""
        return np.ones(self._environment.action_size, np.float32)

    @property
    def horizon(self) -> int:
        """The configuration's `episode_length`."""
        return int(self._environment._config.episode_length)

    @property
    def model(self) -> Any:
        """MuJoCo's model, for drawing."""
        return self._environment.mj_model

    @property
    def step_seconds(self) -> float:
        """Simulated time of a step, in seconds."""
        return float(self._environment.dt)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """First state of an episode and its observation, float32 [O]."""
        with default_promotion():
            state = self._environment.reset(key)
        return self._finish(state)

    def step(
        self, state: Any, action: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        """State, observation float32 [O], reward float32 and terminated bool."""
        copy = jax.tree.map(lambda leaf: leaf, state)  # Some write into info.
        with default_promotion():
            after = self._environment.step(copy, action)
        reward = jnp.asarray(after.reward, jnp.float32)
        terminated = jnp.asarray(after.done, jnp.float32) > 0.5
        return *self._finish(after), reward, terminated

    def _finish(self, state: Any) -> tuple[Any, jax.Array]:
        """The state with the dtypes of `reset`, and its observation."""
        with default_promotion():
            state = with_dtypes_of(self._first, state)
            return state, as_vector(_policy_part(state.obs))

    @cached_property
    def _environment(self) -> Any:
        if not isinstance(self.environment, str):
            return self.environment
        config = configuration(self.environment, self.backend, self.env_kwargs)
        return _load(self.environment, config)

    @cached_property
    def _first(self) -> Any:
        """Shapes and dtypes of the state that `reset` returns."""
        with default_promotion():
            what = f"{_name(self.environment)}: reset(key)"
            return trace(what, self._environment.reset, jax.random.key(0))


def _name(environment: str | MjxEnv) -> str:
    if isinstance(environment, str):
        return f"playground:{environment}"
    return type(environment).__qualname__


def _policy_part(observation: Any) -> Any:
    if isinstance(observation, Mapping) and "state" in observation:
        return observation["state"]
    return observation


def configuration(name: str, backend: str | None, env_kwargs: Mapping[str, Any]) -> Any:
    """Playground's configuration of this name, with these settings.

    Raises:
        ValueError: If it has no such setting.
    """
    config, settings = registry.get_default_config(name), dict(env_kwargs)
    if "impl" in config:
        by_platform = "warp" if jax.default_backend() == "gpu" else "jax"
        settings.setdefault("impl", backend or by_platform)
    for path, value in settings.items():
        _set(config, path, value, name)
    return config


def _load(name: str, config: Any) -> Any:
    """Make Playground's environment of this name."""
    try:
        return registry.load(name, config=config)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"playground:{name} needs the robots of mujoco_menagerie, and Playground "
            f"could not download them: {error}; try again with a network and git, or "
            "use an environment of its dm_control suite, such as CheetahRun"
        ) from error


def _set(config: Any, path: str, value: Any, name: str) -> None:
    """Set one value of a configuration; dots in its path lead into it."""
    *parents, last = path.split(".")
    try:
        part = config
        for parent in parents:
            part = part[parent]
        part[last]  # raises where there is no such setting
        part[last] = value
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"playground:{name} does not take {path}={value!r}: {error}; its settings "
            f"are {', '.join(config)}"
        ) from error
