"""Environments of gymnax for the device driver: `gymnax:NAME`.

Importing this module imports gymnax, an optional package; no other module imports it.
"""

# gymnax is an optional dependency.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from pes_rl.envs.interface import trace
from pes_rl.envs.jax_adapters import (
    as_vector,
    default_promotion,
    vector_size,
    with_dtypes_of,
)
from pes_rl.envs.names import unknown_name

State = tuple[Any, jax.Array]  # gymnax's state, and the key of the next steps


@dataclass(frozen=True)
class GymnaxEnvironment:
    """A `DeviceEnvironment` of gymnax.

    It takes gymnax's `step_env`, which has no reset inside: the engine begins each
    episode in a new first state and ends it where gymnax terminates it, or at the
    horizon, gymnax's `max_steps_in_episode`. The key of an episode's first state also
    decides the keys of all its steps, so the two members of a pair meet the same noise.

    Observations of several axes, dictionaries and tuples become one vector, see
    `as_vector`. A `Box` action keeps its bounds. A `Discrete` action of n values is the
    number of the largest of n outputs of the policy, without bounds; such an
    environment is not differentiable.

    Attributes:
        environment: gymnax's name, such as "CartPole-v1", or an object.
        env_kwargs: Values for the environment's parameters (fields of gymnax's
            `EnvParams`, such as max_steps_in_episode), and of a name also keyword
            arguments of its constructor.

    Raises:
        ValueError: If the name or an argument is unknown, or the actions are neither a
            `Box` nor `Discrete`.
    """

    environment: str | Environment
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)

    on_device = True

    def __post_init__(self) -> None:
        known = list(gymnax.registered_envs)
        if isinstance(self.environment, str) and self.environment not in known:
            raise ValueError(
                unknown_name("environment of gymnax", self.environment, known)
            )
        if not isinstance(self._space, spaces.Box | spaces.Discrete):
            raise ValueError(
                f"{self._environment.name} has actions of "
                f"{type(self._space).__name__}; a policy's are a Box or Discrete"
            )

    @property
    def observation_size(self) -> int:
        return vector_size(self._first[0])

    @property
    def action_low(self) -> np.ndarray:
        """Lowest action of a `Box`, -inf for each value of `Discrete`. # shape=(A,)."""
        return self._bound("low", -np.inf)

    @property
    def action_high(self) -> np.ndarray:
        """Highest action, inf for each value of `Discrete`. # shape=(A,)."""
        return self._bound("high", np.inf)

    @property
    def horizon(self) -> int:
        """The environment's `max_steps_in_episode`."""
        return int(self._made[1].max_steps_in_episode)

    @property
    def differentiable(self) -> bool:
        """Whether gymnax has derivatives of its steps."""
        return self._environment.transition_gradients_enabled and not self._is_discrete

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        """First state of an episode and its observation, float32 [O]."""
        first, steps = jax.random.split(key)
        with default_promotion():
            observation, state = self._environment.reset_env(first, self._made[1])
            state = with_dtypes_of(self._first[1], state)
            return (state, steps), as_vector(observation)

    def step(
        self, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array]:
        """State, observation float32 [O], reward float32 and terminated bool."""
        simulation, key = state
        steps, key = jax.random.split(key)
        with default_promotion():
            observation, simulation, reward, terminated, _ = self._environment.step_env(
                key, simulation, self._convert(action), self._made[1]
            )
            return (
                (with_dtypes_of(self._first[1], simulation), steps),
                as_vector(observation),
                jnp.asarray(reward, jnp.float32).reshape(()),
                jnp.asarray(terminated, bool).reshape(()),
            )

    def _convert(self, action: jax.Array) -> jax.Array:
        """The policy's output as gymnax's action."""
        if self._is_discrete:
            return jnp.argmax(action).astype(jnp.int32)
        return action.reshape(self._space.shape).astype(self._space.dtype)

    def _bound(self, side: str, of_discrete: float) -> np.ndarray:
        if self._is_discrete:
            return np.full(self._space.n, of_discrete, np.float32)
        bound = np.asarray(getattr(self._space, side), np.float32)
        return np.broadcast_to(bound, self._space.shape).ravel()

    @cached_property
    def _made(self) -> tuple[Any, Any]:
        """Gymnax's environment and its parameters."""
        options, environment = dict(self.env_kwargs), self.environment
        if isinstance(environment, str):
            environment, options = _make_named(environment, options)
        parameters: Any = environment.default_params
        if environment.supports_transition_gradients:
            environment = environment.with_transition_gradients()
        return environment, parameters.replace(**options)

    @property
    def _environment(self) -> Any:
        return self._made[0]

    @cached_property
    def _space(self) -> Any:
        return self._environment.action_space(self._made[1])

    @property
    def _is_discrete(self) -> bool:
        return isinstance(self._space, spaces.Discrete)

    @cached_property
    def _first(self) -> Any:
        """Shapes and dtypes of the observation and state that `reset_env` returns."""
        environment, parameters = self._made
        with default_promotion():
            return trace(
                f"{type(environment).__qualname__}: reset_env(key, parameters)",
                lambda key: environment.reset_env(key, parameters),
                jax.random.key(0),
            )


def _make_named(name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(gymnax's environment of this name, the options that are its parameters)."""
    arguments: dict[str, Any] = {}
    try:
        with default_promotion():
            # A class's parameters have the same fields whatever its arguments.
            names = [each.name for each in fields(gymnax.make(name)[1])]
            arguments = {n: value for n, value in options.items() if n not in names}
            environment, _ = gymnax.make(name, **arguments)
    except TypeError as error:
        raise ValueError(
            f"gymnax:{name} does not take {arguments}: {error}; its parameters are "
            f"{', '.join(names)}"
        ) from error
    except OSError as error:
        raise ValueError(f"gymnax cannot load what {name} needs: {error}") from error
    return environment, {n: v for n, v in options.items() if n in names}
