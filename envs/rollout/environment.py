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

    Example:
        >>> class Parabola:
        ...     def init(self, key):
        ...         return jnp.float32(0)
        ...
        ...     def step(self, theta, t):
        ...         return t + 1, theta[0] * t**2, jnp.array(False)
        >>> from pes_rl.envs import DeviceRollout
        >>> rollout = DeviceRollout(Parabola(), horizon=4)
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

    Any object with these attributes can be trained on: `pes_rl.train(env=MyEnv())`, or
    `--env jax:package:MyEnv`. There is nothing to inherit from. Both methods are traced
    by JAX and vmapped over the particles, so they may use only what JAX can trace (no
    `if` on a value, no NumPy random numbers). What they return has the same shapes and
    dtypes at every call.

    * Ends: `step` returns `terminated` where an episode ends by what happened in it.
      The time limit is not its business: the engine cuts each episode after `horizon`
      steps (truncation), and begins the next one with `reset` and a new key. There is
      no reset inside `step`; the state after an end is not used.
    * Randomness: `reset` takes all of it from its key. An environment with random steps
      keeps a key in its state and splits it at each step. The two members of an
      antithetic pair get the same keys, so they meet the same noise at the same step.
    * NaN: a reward or an observation that is not finite means that the simulation
      diverged. Its episode ends there with a loss of `diverged_loss`, and is counted.

    Optional attributes: `differentiable = False` where derivatives of `step` are
    useless, which excludes agents that need them; `render(state)`, which draws one
    state as a NumPy array [height, width, 3] of uint8, outside of JAX, for
    `pes_rl.video`; and `step_seconds`, the simulated time of a step, which is 1 / 30
    otherwise.

    Example: a mass on a line that is to be brought to 0.

    >>> class PointMass:
    ...     on_device, observation_size, horizon = True, 2, 100
    ...     action_low, action_high = np.array([-1.0]), np.array([1.0])
    ...
    ...     def reset(self, key):
    ...         position = jax.random.uniform(key, minval=-1.0, maxval=1.0)
    ...         state = jnp.stack([position, 0.0])
    ...         return state, state
    ...
    ...     def step(self, state, action):
    ...         speed = state[1] + 0.1 * action[0]
    ...         state = jnp.stack([state[0] + 0.1 * speed, speed])
    ...         return state, state, -(state[0] ** 2), jnp.abs(state[0]) > 2.0
    """

    @property
    def on_device(self) -> bool:
        """True; a `HostEnvironment` has False."""
        ...

    @property
    def observation_size(self) -> int:
        """Length O of an observation."""
        ...

    @property
    def action_low(self) -> Any:
        """Lowest action, an array or tuple of A numbers; -inf for no bound."""
        ...

    @property
    def action_high(self) -> Any:
        """Highest action, of the same length; inf for no bound."""
        ...

    @property
    def horizon(self) -> int | None:
        """Time limit of an episode, in steps; None if the settings must name one."""
        ...

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """First (state, observation) of an episode.

        Args:
            key: A key of `jax.random.key`, another one for each episode.

        Returns:
            The state, any pytree of arrays, and the observation. # shape=(O,), float
        """
        ...

    def step(
        self, state: Any, action: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        """Next (state, observation, reward, terminated).

        Args:
            state: As `reset` or `step` returned it.
            action: Within the bounds unless `clip_actions` is off. # shape=(A,), float

        Returns:
            The state, of the same structure; the observation [O] in it; the reward of
            this step, a float scalar; and whether the episode ended, a bool scalar.
        """
        ...


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

    Example:
        >>> from pes_rl.agents import Policy
        >>> from pes_rl.envs import make
        >>> policy = Policy(8, (-1.0, -1.0), (1.0, 1.0))
        >>> problem = PolicyProblem(make("jax:swimmer"), policy.act)
        >>> simulation, observation = problem.init(jax.random.key(0))
        >>> observation.shape
        (8,)
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
