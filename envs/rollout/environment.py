"""What the device driver unrolls: problems written in JAX, policies among them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.observations import ObservationMoments


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


def loss_from_reward(reward: Any, reward_shift: float) -> Any:
    """The loss of one step, in training: reward_shift - reward.

    Args:
        reward: Of the step, NumPy or JAX, any shape.
        reward_shift: Subtracted from the reward of every step.
    """
    return reward_shift - reward


def return_from_loss(loss: Any, steps: Any = 0, reward_shift: float = 0.0) -> Any:
    """The return of an episode from its loss: the inverse of `loss_from_reward`.

        return = sum of rewards = reward_shift steps - loss

    Args:
        loss: Sum of the losses of the episode's steps, NumPy or JAX, any shape.
        steps: Number of those steps.
        reward_shift: What `loss_from_reward` subtracted from each reward.
    """
    return -loss + reward_shift * steps


@dataclass(frozen=True)
class PolicyProblem:
    """A policy in a JAX environment, as a problem.

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
            jnp.isfinite(observation).all(),
            loss_from_reward(reward, self.reward_shift),
            jnp.nan,
        )
        return (simulation, observation), loss, terminated


class HostEnvironment(Protocol):
    """A batch of N simulations stepped together in NumPy.

    The environment holds the simulations only during an unroll: `load` puts them in and
    `save` takes them out, so that between two unrolls they are data.
    """

    @property
    def on_device(self) -> bool:
        """False; a `DeviceEnvironment` has True."""
        ...

    @property
    def observation_size(self) -> int: ...

    @property
    def action_low(self) -> np.ndarray: ...

    @property
    def action_high(self) -> np.ndarray: ...

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is cut; None where nothing cuts it."""
        ...

    @property
    def can_copy(self) -> bool:
        """Whether what `save` returns can be indexed and loaded again."""
        ...

    def allocate(self, num_simulations: int) -> None:
        """Prepare N simulations; `reset` of all of them follows."""
        ...

    def load(self, state: Any) -> None:
        """Continue the simulations that `save` returned."""
        ...

    def save(self) -> Any:
        """The simulations' states, with leading axis N."""
        ...

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Start new episodes; all of an episode's randomness is in its key.

        Args:
            ids: Simulations to reset. # shape=(n,)
            keys: Key data of each new episode. # shape=(n, 2), dtype=uint32

        Returns:
            First observations. # shape=(n, O)
        """
        ...

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step of the simulations `ids` (n of them; None for all).

        Returns:
            (observations [n, O], rewards [n], terminated [n]); the reward of a
            simulation that diverged is NaN.
        """
        ...
