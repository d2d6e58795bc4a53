"""Evaluation: whole fresh episodes with the mean parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs import ObservationMoments, Rollout
from pes_rl.learner import with_normalizer

Evaluator = Callable[[jax.Array, ObservationMoments | None, jax.Array], "Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths (steps) of the episodes played. # shape=(episodes,) each."""

    returns: np.ndarray
    lengths: np.ndarray


def make_evaluator(
    rollout: Rollout, num_episodes: int, counts: Literal["sum", "last"] = "sum"
) -> Evaluator:
    """A function (theta [D], observations, key) -> `Evaluation` of fresh episodes.

    It plays on `rollout`, which training must not use; its steps are not training's.
    `observations` are what training normalises by, and None where it does not. An
    episode's return is minus the sum of its losses, or minus the last of them where it
    is the last that counts.
    """
    horizon = rollout.horizon
    assert horizon is not None  # the trainer's environments all have one

    def play(
        theta: jax.Array, observations: ObservationMoments | None, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        played = with_normalizer(rollout, observations)
        particles = rollout.reset(key, num_episodes, members=1)
        thetas = jnp.broadcast_to(theta, (num_episodes, theta.size))
        _, segment = played.unroll(particles, thetas, horizon, single_episode=True)
        lengths = segment.simulated.sum(0, dtype=jnp.int32)
        if counts == "last":
            return -jnp.take_along_axis(segment.loss, lengths[None] - 1, 0)[0], lengths
        return -segment.loss.sum(0), lengths

    play_once = jax.jit(play) if rollout.on_device else play

    def evaluate(
        theta: jax.Array, observations: ObservationMoments | None, key: jax.Array
    ) -> Evaluation:
        returns, lengths = play_once(theta, observations, key)
        return Evaluation(np.asarray(returns), np.asarray(lengths))

    return evaluate
