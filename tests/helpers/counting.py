"""A counting environment, written once for the device driver and once for the host.

Every number in it is a small multiple of one half, so float32 arithmetic is exact and
the two must agree bit by bit.

An episode starts with a tide and some fuel, both taken from its key. Each step

- rounds the action down to a push, a multiple of a half in [-4, 4];
- adds the push to the drift, so that losses depend on all actions of the episode;
- rewards push * (1 + (tide + step) mod 3) + drift;
- burns one unit of fuel, two if the push is positive; out of fuel, the episode ends.

So the two members of a pair, which are pushed in opposite directions, end at different
steps.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs import DeviceRollout, HostRollout, PolicyProblem

NUM_PARAMETERS = 2
SHORTEST_EPISODE = 3  # Where every push is positive, from the least fuel.
DIVERGING_PUSH = 1.0


def act(theta: Any, observation: Any) -> Any:
    """A policy: theta[0] at even steps and theta[1] at odd ones, in JAX or NumPy."""
    xp = theta.__array_namespace__()
    even = observation[..., :1] % 2 == 0
    return xp.where(even, theta[..., :1], theta[..., 1:])


@dataclass(frozen=True)
class DeviceCounting:
    """The environment in JAX.

    Attributes:
        horizon: Steps of the longest episode.
        diverges_at: Step (the first is 1) at which a push of `DIVERGING_PUSH` or more
            makes the reward NaN, or the observation if the tide is odd; None for never.
    """

    horizon: int = 20
    diverges_at: int | None = None

    on_device = True
    observation_size = 2
    action_low = (-4.0,)
    action_high = (4.0,)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        bits = jax.random.key_data(key)
        state = {
            "step": jnp.float32(0),
            "tide": (bits[1] % 1024).astype(jnp.float32),
            "fuel": 6 + (bits[0] % 3).astype(jnp.float32),
            "drift": jnp.float32(0),
        }
        return state, jnp.stack([state["step"], state["tide"]])

    def step(
        self, state: Any, action: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        push = jnp.clip(jnp.floor(2 * action[0]) / 2, -4, 4)
        step, tide = state["step"] + 1, state["tide"]
        drift = state["drift"] + push
        fuel = state["fuel"] - jnp.where(push > 0, 2.0, 1.0)
        reward = push * (1 + (tide + step) % 3) + drift
        observation = jnp.stack([step, tide])
        if self.diverges_at is not None:
            diverged = (step == self.diverges_at) & (push >= DIVERGING_PUSH)
            odd = tide % 2 == 1
            observation = jnp.where(diverged & odd, jnp.nan, observation)
            reward = jnp.where(diverged & ~odd, jnp.nan, reward)
        state = {"step": step, "tide": tide, "fuel": fuel, "drift": drift}
        return state, observation, reward, fuel <= 0


class HostCounting:
    """The environment in NumPy, for a batch of simulations.

    Attributes:
        steps_taken: Steps of all simulations; tests may set it back to 0.
    """

    on_device = False
    observation_size = 2
    action_low = np.array([-4.0], np.float32)
    action_high = np.array([4.0], np.float32)

    def __init__(
        self,
        horizon: int = 20,
        diverges_at: int | None = None,
        can_copy: bool = True,
    ) -> None:
        self.horizon = horizon
        self.diverges_at = diverges_at
        self.can_copy = can_copy
        self.steps_taken = 0

    def allocate(self, num_simulations: int) -> None:
        zeros = np.zeros(num_simulations, np.float32)
        self.step_number, self.tide = zeros.copy(), zeros.copy()
        self.fuel, self.drift = zeros.copy(), zeros.copy()

    def load(self, state: Any) -> None:
        self.step_number, self.tide = state["step"].copy(), state["tide"].copy()
        self.fuel, self.drift = state["fuel"].copy(), state["drift"].copy()

    def save(self) -> Any:
        return {
            "step": self.step_number.copy(),
            "tide": self.tide.copy(),
            "fuel": self.fuel.copy(),
            "drift": self.drift.copy(),
        }

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        self.step_number[ids] = 0
        self.tide[ids] = keys[:, 1] % 1024
        self.fuel[ids] = 6 + keys[:, 0] % 3
        self.drift[ids] = 0
        return np.stack([self.step_number[ids], self.tide[ids]], axis=1)

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.arange(len(self.drift)) if ids is None else ids
        self.steps_taken += len(rows)
        push = np.clip(np.floor(2 * actions[:, 0]) / 2, -4, 4)
        self.step_number[rows] += 1
        self.drift[rows] += push
        self.fuel[rows] -= np.where(push > 0, 2, 1)
        phase = (self.tide[rows] + self.step_number[rows]) % 3
        reward = push * (1 + phase) + self.drift[rows]
        observation = np.stack([self.step_number[rows], self.tide[rows]], axis=1)
        if self.diverges_at is not None:
            diverged = self.step_number[rows] == self.diverges_at
            diverged &= push >= DIVERGING_PUSH
            odd = self.tide[rows] % 2 == 1
            observation[diverged & odd] = np.nan
            reward[diverged & ~odd] = np.nan
        return observation, reward, self.fuel[rows] <= 0


class CountingSystem:
    """The environment for one simulation, used by the loops of `reference`."""

    def __init__(self, environment: HostCounting, pair_keys: jax.Array) -> None:
        self.environment, self.pair_keys = environment, pair_keys

    def begin(self, pair: int, episode: int) -> Any:
        key = jax.random.key_data(jax.random.fold_in(self.pair_keys[pair], episode))
        self.environment.allocate(1)
        observation = self.environment.reset(np.arange(1), np.asarray(key)[None])
        return self.environment.save(), observation

    def step(self, state: Any, theta: np.ndarray) -> tuple[Any, float, bool]:
        simulation, observation = state
        self.environment.load(simulation)
        action = self.act(theta[None], observation)
        observation, reward, terminated = self.environment.step(action, None)
        loss = -float(reward[0]) if np.isfinite(observation).all() else np.nan
        return (self.environment.save(), observation), loss, bool(terminated[0])

    def act(self, thetas: np.ndarray, observations: np.ndarray) -> np.ndarray:
        return act(thetas, observations)


@dataclass(frozen=True)
class CompiledRollout(DeviceRollout):
    """A device rollout with jitted methods; equal rollouts share compilations."""

    @partial(jax.jit, static_argnames=("self", "num_pairs", "members", "stagger"))
    def reset(self, key, num_pairs, *, members=2, stagger=False):
        return super().reset(key, num_pairs, members=members, stagger=stagger)

    @partial(jax.jit, static_argnames=("self", "length", "single_episode"))
    def unroll(self, particles, thetas, length, *, single_episode=False):
        return super().unroll(particles, thetas, length, single_episode=single_episode)

    def normalized(self, moments):
        """A rollout that is not jitted: moments are arrays, which cannot be static."""
        plain = DeviceRollout(self.problem, self.horizon, self.diverged_loss)
        return plain.normalized(moments)


def device_rollout(
    horizon: int = 20,
    diverged_loss: float = 0.0,
    reward_shift: float = 0.0,
    **options: Any,
) -> DeviceRollout:
    problem = PolicyProblem(DeviceCounting(horizon, **options), act, reward_shift)
    return CompiledRollout(problem, horizon, diverged_loss)


def host_rollout(
    horizon: int = 20,
    diverged_loss: float = 0.0,
    reward_shift: float = 0.0,
    **options: Any,
) -> HostRollout:
    environment = HostCounting(horizon, **options)
    return HostRollout(environment, act, horizon, diverged_loss, reward_shift)


ROLLOUTS = {"device": device_rollout, "host": host_rollout}


def observation_of(particles: Any) -> np.ndarray:
    """Observations before the next step, of either driver. # shape=(N, 2)"""
    state = particles.state
    return np.asarray(state[1] if isinstance(state, tuple) else state.observation)
