"""Evaluation: whole fresh episodes with the mean parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from pes_rl.envs import ObservationMoments, Rollout
from pes_rl.envs.rollout.episodes import Array
from pes_rl.learner.learner import with_normalizer
from pes_rl.runtime.multihost import is_first

ROWS = 2**20
"""Floats of theta, once an episode, up to which a device holds it so: 4 MiB."""

Evaluator = Callable[[jax.Array, ObservationMoments | None, jax.Array], "Evaluation"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths (steps) of the episodes played. # shape=(episodes,) each.

    Callbacks get them in NumPy.
    """

    returns: Array
    lengths: Array


def make_evaluator(
    rollout: Rollout, num_episodes: int, counts: Literal["sum", "last"] = "sum"
) -> Evaluator:
    """A function (theta [D], observations, key) -> `Evaluation` of fresh episodes.

    It plays on `rollout`, which training must not use; its steps are not training's.
    However many the episodes, theta is held once, or in no more than `ROWS` floats.
    Of several processes the first plays, and tells the others; all must call.
    `observations` are what training normalises by, and None where it does not. An
    episode's return is minus the sum of its losses, or minus the last of them where it
    is the last that counts.
    """
    horizon = rollout.horizon
    assert horizon is not None  # the trainer's environments all have one

    def evaluate(
        theta: jax.Array, observations: ObservationMoments | None, key: jax.Array
    ) -> Evaluation:
        played = with_normalizer(rollout, observations)
        particles = rollout.reset(key, num_episodes, members=1)
        thetas = _rows(theta, num_episodes, rollout.on_device)
        _, segment = played.unroll(particles, thetas, horizon, single_episode=True)
        lengths = segment.simulated.sum(0, dtype=jnp.int32)
        if counts == "last":
            last = jnp.take_along_axis(segment.loss, lengths[None] - 1, 0)[0]
            return Evaluation(-last, lengths)
        return Evaluation(-segment.loss.sum(0), lengths)

    evaluate = jax.jit(evaluate) if rollout.on_device else evaluate
    return evaluate if jax.process_count() == 1 else _told(evaluate, num_episodes)


def _rows(theta: jax.Array, num_episodes: int, on_device: bool) -> jax.Array:
    """Theta for all episodes as one row, or as a row each: (1, D) or (episodes, D).

    In NumPy the two give the same bits. On a device one row makes matrix products of
    another shape, which round otherwise; so few parameters have a row each.
    """
    count = num_episodes if on_device and num_episodes * theta.size <= ROWS else 1
    return jnp.broadcast_to(theta, (count, theta.size))


def _told(evaluate: Evaluator, num_episodes: int) -> Evaluator:
    """The same in all of several processes, of which the first evaluates."""

    def evaluate_once(*arguments: Any) -> Evaluation:
        problem = None
        told = np.zeros((3, num_episodes), np.float32)  # returns, lengths, success
        try:
            if is_first():
                evaluation = evaluate(*arguments)
                told = np.stack(
                    [evaluation.returns, evaluation.lengths, np.ones(num_episodes)]
                ).astype(np.float32)
        except Exception as error:
            problem = error
        returns, lengths, success = broadcast_one_to_all(told)
        if problem is not None:
            raise problem
        if not success.all():
            raise RuntimeError("it failed in process 0")
        return Evaluation(returns, lengths.astype(np.int32))

    return evaluate_once
