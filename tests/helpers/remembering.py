"""A policy with a carry for the counting environment, on both drivers and for loops.

Its pushes depend on everything since the episode began, and all its numbers are small
multiples of one half, so that both drivers agree bit by bit.
"""

from functools import partial
from typing import Any

import counting
import jax
import numpy as np

from pes_rl.envs import (
    CarryingEnvironment,
    RecurrentHostRollout,
    RecurrentProblem,
)


def initial_carry() -> Any:
    return {"calls": np.int32(0), "memory": np.array([0.5, -0.5], np.float32)}


def act(theta: Any, carry: Any, observation: Any) -> tuple[Any, Any]:
    """Pushes what `counting.act` would, and half of what it remembers of that.

    The first memory is the sum so far, kept within -2 and 2, the second the push before
    the last; `calls` counts the steps of the episode.
    """
    xp = theta.__array_namespace__()
    push = xp.floor(2 * counting.act(theta, observation)) / 2
    total = xp.clip(carry["memory"][..., :1] + push, -2, 2)
    action = push + xp.floor(carry["memory"][..., 1:]) / 2 - total / 2
    memory = xp.concat([total, push], axis=-1)
    return {"calls": carry["calls"] + 1, "memory": memory}, action


def device_rollout(horizon: int = 20, diverged_loss: float = 0.0, **options: Any):
    environment = counting.DeviceCounting(horizon, **options)
    problem = RecurrentProblem(environment, act, initial_carry=initial_carry)
    return counting.CompiledRollout(problem, horizon, diverged_loss)


def host_rollout(horizon: int = 20, diverged_loss: float = 0.0, **options: Any):
    environment = counting.HostCounting(horizon, **options)
    environment = CarryingEnvironment(environment, initial_carry)
    return RecurrentHostRollout(environment, act, horizon, diverged_loss)


ROLLOUTS = {"device": device_rollout, "host": host_rollout}


def carry_of(particles: Any) -> Any:
    """The carries of either driver's particles, leading axis N."""
    state = particles.state
    carrying = state[0] if isinstance(state, tuple) else state.simulation
    return jax.tree.map(np.asarray, carrying[1])


class RememberingSystem(counting.CountingSystem):
    """The policy in one simulation of the environment, for the loops of `reference`."""

    def begin(self, pair: int, episode: int) -> Any:
        return super().begin(pair, episode), initial_carry()

    def step(self, state: Any, theta: np.ndarray) -> tuple[Any, float, bool]:
        inner, carry = state
        _, observation = inner
        after, action = act(theta, carry, observation[0])
        push = partial(_constant, action)
        self.act = push  # type: ignore[method-assign]
        inner, loss, ended = super().step(inner, theta)
        return (inner, after), loss, ended


def _constant(action: np.ndarray, thetas: Any, observations: Any) -> np.ndarray:
    del thetas, observations
    return action[None]
