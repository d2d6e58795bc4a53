"""Evaluation of a policy: whole fresh episodes with the mean parameters."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs import Rollout


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths (steps) of the episodes played. # shape=(episodes,) each."""

    returns: np.ndarray
    lengths: np.ndarray


def make_evaluator(
    rollout: Rollout, num_episodes: int
) -> Callable[[jax.Array, jax.Array], Evaluation]:
    """A function (theta [D], key) -> `Evaluation` of `num_episodes` fresh episodes.

    It plays on `rollout`, which training must not use; its steps are not training's.
    """
    horizon = rollout.horizon
    assert horizon is not None  # the trainer's environments all have one

    def play(theta: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        particles = rollout.reset(key, num_episodes, members=1)
        thetas = jnp.broadcast_to(theta, (num_episodes, theta.size))
        _, segment = rollout.unroll(particles, thetas, horizon, single_episode=True)
        return -segment.loss.sum(0), segment.simulated.sum(0, dtype=jnp.int32)

    play_once = jax.jit(play) if rollout.on_device else play

    def evaluate(theta: jax.Array, key: jax.Array) -> Evaluation:
        returns, lengths = play_once(theta, key)
        return Evaluation(np.asarray(returns), np.asarray(lengths))

    return evaluate
