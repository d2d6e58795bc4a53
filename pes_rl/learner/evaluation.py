"""Evaluation: whole fresh episodes with the mean parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from pes_rl.envs import ObservationMoments, Rollout
from pes_rl.envs.rollout.environment import return_from_loss
from pes_rl.envs.rollout.episodes import Array
from pes_rl.learner.learner import normalize_if_tracked
from pes_rl.runtime.multihost import is_first

MAX_ROW_FLOATS = 2**20
"""Largest array of one copy of theta per episode that is made on a device: 4 MiB."""

Evaluator = Callable[[jax.Array, ObservationMoments | None, jax.Array], "Evaluation"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of the episodes of one evaluation.

    Attributes:
        returns: # shape=(episodes,); callbacks get NumPy arrays.
        lengths: In steps. # shape=(episodes,)
        diverged: Whether the simulation diverged, so that the return contains the
            setting `diverged_loss` and says nothing. # shape=(episodes,), dtype=bool
    """

    returns: Array
    lengths: Array
    diverged: Array


def make_evaluator(
    rollout: Rollout, num_episodes: int, meta_loss: Literal["sum", "last"] = "sum"
) -> Evaluator:
    """Make a function (theta [D], observations, key) -> `Evaluation`.

    The function plays fresh episodes with theta held fixed. `observations` are the
    moments that training normalises observations by, or None. In a run of several
    processes all must call it; process 0 plays and sends the result to the others.

    Args:
        rollout: Simulates the episodes. Training must not use it too.
        num_episodes: Episodes of an evaluation.
        meta_loss: An episode's return is minus the `sum` of its losses, or minus the
            `last` of them.
    """
    horizon = rollout.horizon
    assert horizon is not None  # All environments of the trainer have one.

    def evaluate(
        theta: jax.Array, observations: ObservationMoments | None, key: jax.Array
    ) -> Evaluation:
        normalized = normalize_if_tracked(rollout, observations)
        particles = rollout.reset(key, num_episodes, members=1)
        thetas = _theta_rows(theta, num_episodes, rollout.on_device)
        _, segment = normalized.unroll(particles, thetas, horizon, single_episode=True)
        lengths = segment.simulated.sum(0, dtype=jnp.int32)
        diverged = jnp.asarray(segment.diverged).any(0)
        loss = segment.loss.sum(0)
        if meta_loss == "last":
            loss = jnp.take_along_axis(segment.loss, lengths[None] - 1, 0)[0]
        return Evaluation(return_from_loss(loss), lengths, diverged)

    evaluate = jax.jit(evaluate) if rollout.on_device else evaluate
    if jax.process_count() == 1:
        return evaluate
    return _evaluated_by_process_0(evaluate, num_episodes)


def _theta_rows(theta: jax.Array, num_episodes: int, on_device: bool) -> jax.Array:
    """Theta as one row for all episodes, or as one row for each: (1, D) or (E, D).

    On a device a single row makes matrix products of another shape, which round
    differently; so theta is repeated where that takes little memory. In NumPy both give
    the same bits.
    """
    count = (
        num_episodes if on_device and num_episodes * theta.size <= MAX_ROW_FLOATS else 1
    )
    return jnp.broadcast_to(theta, (count, theta.size))


def _evaluated_by_process_0(evaluate: Evaluator, num_episodes: int) -> Evaluator:
    """The same evaluator for several processes: process 0 plays, all get the result."""

    def evaluate_once(*arguments: Any) -> Evaluation:
        problem = None
        sent = np.zeros((4, num_episodes), np.float32)  # the fields, then success
        try:
            if is_first():
                evaluation = evaluate(*arguments)
                sent = np.stack(
                    [
                        evaluation.returns,
                        evaluation.lengths,
                        evaluation.diverged,
                        np.ones(num_episodes),
                    ]
                ).astype(np.float32)
        except Exception as error:
            problem = error
        returns, lengths, diverged, success = broadcast_one_to_all(sent)
        if problem is not None:
            raise problem
        if not success.all():
            raise RuntimeError("it failed in process 0")
        return Evaluation(returns, lengths.astype(np.int32), diverged > 0)

    return evaluate_once
