"""What the device driver unrolls: problems written in JAX, policies among them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from pes_rl.envs.observations import ObservationMoments


class Problem(Protocol):
    """An unrolled system s_t = f(s_{t-1}; theta) with a loss at each step.

    Both methods are pure, written for one particle, and vmapped by the driver. A
    problem whose derivatives say nothing, as those of a loss that is constant in
    pieces, has an attribute `differentiable` of False; without one it counts as True.
    """

    def init(self, key: jax.Array) -> Any:
        """First state of an episode; all of the episode's randomness is in `key`."""
        ...

    def step(self, theta: jax.Array, state: Any) -> tuple[Any, jax.Array, jax.Array]:
        """One step: (state, loss, ended), the loss a float32 and `ended` a bool scalar.

        A loss that is not finite says that the simulation diverged.
        """
        ...


class DeviceEnvironment(Protocol):
    """An environment in JAX: pure functions of one simulation.

    `step` returns (state, observation, reward, terminated).
    """

    @property
    def on_device(self) -> bool:
        """True; a `HostEnvironment` has False."""
        ...

    @property
    def observation_size(self) -> int: ...

    @property
    def action_low(self) -> Any: ...

    @property
    def action_high(self) -> Any: ...

    @property
    def horizon(self) -> int: ...

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]: ...

    def step(
        self, state: Any, action: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array]: ...


@dataclass(frozen=True)
class PolicyProblem:
    """A policy in a JAX environment, as a problem: loss = reward_shift - reward.

    An observation that is not finite makes the loss NaN, so that the engine ends the
    episode as diverged.

    Attributes:
        environment: The environment.
        act: Maps (theta [D], observation [O]) to an action [A].
        reward_shift: Taken from the reward of every step. Where episodes end early it
            changes what is optimised: longer ones lose by it, or gain if it is
            negative. Else it changes nothing but the variance.
        normalizer: What observations are normalised by; None leaves them as they are.
    """

    environment: DeviceEnvironment
    act: Callable[[Any, Any], Any]
    reward_shift: float = 0.0
    normalizer: ObservationMoments | None = None

    @property
    def differentiable(self) -> bool:
        return getattr(self.environment, "differentiable", True)

    def init(self, key: jax.Array) -> tuple[Any, jax.Array]:
        return self.environment.reset(key)

    def step(
        self, theta: jax.Array, state: tuple[Any, jax.Array]
    ) -> tuple[Any, jax.Array, jax.Array]:
        simulation, observation = state
        if self.normalizer is not None:
            observation = self.normalizer.normalize(observation)
        action = self.act(theta, observation)
        simulation, observation, reward, terminated = self.environment.step(
            simulation, action
        )
        loss = jnp.where(
            jnp.isfinite(observation).all(), self.reward_shift - reward, jnp.nan
        )
        return (simulation, observation), loss, terminated
