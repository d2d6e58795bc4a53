"""What the drivers unroll: problems and environments, and the loss of a reward.

Users maximise returns and the engine minimises losses. `loss_from_reward` and
`return_from_loss` are the one place that knows the sign and the shift between them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.observations import ObservationMoments


class Problem(Protocol):
    """An unrolled system s_t = f(s_{t-1}; theta) with a loss at each step.

    Both methods are pure and written for one particle; the driver vmaps them. A problem
    whose derivatives are useless, such as those of a piecewise constant loss, has the
    attribute `differentiable = False`; a missing attribute counts as True.
    """

    def init(self, key: jax.Array) -> Any:
        """First state of an episode; `key` decides all of the episode's randomness."""
        ...

    def step(self, theta: jax.Array, state: Any) -> tuple[Any, jax.Array, jax.Array]:
        """One step: (state, loss, ended), with a float32 and a bool scalar.

        A loss that is not finite means that the simulation diverged.
        """
        ...


class DeviceEnvironment(Protocol):
    """An environment written in JAX: pure functions of one simulation.

    `reset` returns (state, observation) and `step` returns (state, observation, reward,
    terminated).
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
    """Loss of one training step: reward_shift - reward.

    Args:
        reward: Reward of the step, a number or an array of JAX's or NumPy's.
        reward_shift: Constant subtracted from the reward of every step.

    >>> loss_from_reward(3.0, reward_shift=1.0)
    -2.0
    """
    return reward_shift - reward


def return_from_loss(loss: Any, steps: Any = 0, reward_shift: float = 0.0) -> Any:
    """Return of an episode from its loss: the inverse of `loss_from_reward`.

        return = sum of rewards = reward_shift * steps - loss

    Args:
        loss: Sum of the losses of the episode's steps, a number or an array of JAX's or
            NumPy's.
        steps: Number of those steps; it may be left out where the shift is 0.
        reward_shift: Constant that `loss_from_reward` subtracted from each reward.

    >>> return_from_loss(-4.0, steps=2, reward_shift=1.0)
    6.0
    """
    return -loss + reward_shift * steps


@dataclass(frozen=True)
class PolicyProblem:
    """A policy in a JAX environment, as a problem; see `loss_from_reward`.

    Where the observation is not finite the loss is NaN, so that the engine ends the
    episode as diverged.

    Attributes:
        environment: The environment.
        act: Maps (theta [D], observation [O]) to an action [A].
        reward_shift: Constant subtracted from the reward of every step. Where episodes
            can end early it changes the objective: a positive one favours short
            episodes, a negative one long episodes. Elsewhere it changes only the
            variance.
        normalizer: Moments that normalise the observations; None leaves them unchanged.
    """

    environment: DeviceEnvironment
    act: Callable[..., Any]
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
        return self.advance(simulation, self.act(theta, self.normalize(observation)))

    def normalize(self, observation: jax.Array) -> jax.Array:
        """The observation as the policy gets it."""
        if self.normalizer is None:
            return observation
        return self.normalizer.normalize(observation)

    def advance(
        self, simulation: Any, action: jax.Array
    ) -> tuple[tuple[Any, jax.Array], jax.Array, jax.Array]:
        """Step the simulation: ((simulation, observation), loss, terminated)."""
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
    """A batch of N simulations that are stepped together, with NumPy arrays.

    The environment holds the simulations only during an unroll: `load` sets their
    states and `save` returns them, so that between two unrolls they are plain data.
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
        """Time limit of an episode, in steps; None for no limit."""
        ...

    @property
    def can_copy(self) -> bool:
        """Whether what `save` returns can be indexed and loaded again."""
        ...

    def allocate(self, num_simulations: int) -> None:
        """Create N simulations; `reset` of all of them must follow."""
        ...

    def load(self, state: Any) -> None:
        """Continue the simulations that `save` returned."""
        ...

    def save(self) -> Any:
        """The simulations' states, with leading axis N."""
        ...

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Start new episodes; an episode's key decides all of its randomness.

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
        """Step the n simulations `ids`; None steps all of them.

        Returns:
            (observations [n, O], rewards [n], terminated [n]); the reward of a
            simulation that diverged is NaN.
        """
        ...
