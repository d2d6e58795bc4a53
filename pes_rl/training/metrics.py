"""Metrics of a run: the columns of its log, distributions, and its summary."""

from typing import Any

import jax
import numpy as np

from pes_rl.agents import Report
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs import Particles
from pes_rl.envs.rollout.environment import return_from_loss
from pes_rl.learner.evaluation import Evaluation
from pes_rl.learner.learner import Learner, TrainState
from pes_rl.runtime.multihost import on_host
from pes_rl.training.counters import Counters

COLUMNS: dict[str, str] = {
    "time/total_timesteps": "Environment steps that training simulated; not those of "
    "evaluations.",
    "time/iterations": "Updates of theta.",
    "time/time_elapsed": "Seconds since the start, evaluations included.",
    "time/fps": "Environment steps a second of training, without evaluations and "
    "logging.",
    "rollout/ep_rew_mean": "Mean return of the training episodes that ended, under "
    "perturbed policies; without the reward shift.",
    "rollout/ep_len_mean": "Mean length in steps of the training episodes that ended.",
    "eval/mean_reward": "Mean return of fresh episodes with the unperturbed policy.",
    "eval/std_reward": "Standard deviation of these returns.",
    "eval/mean_ep_length": "Mean length in steps of these episodes.",
    "eval/diverged_episodes": "Evaluation episodes whose simulation diverged; with "
    "any, the evaluation does not count.",
    "train/learning_rate": "Learning rate of the next update.",
    "train/sigma": "Standard deviation of the perturbations in the next update.",
    "train/theta_norm": "Euclidean norm of the parameters.",
    "train/reward_shift": "What the next update subtracts from each reward, where "
    "that changes over the run.",
    "pes/gradient_norm": "Euclidean norm of the gradient estimate, mean over the "
    "updates of the row.",
    "pes/signal_to_noise": "Squared norm of the gradient over the variance of its "
    "estimate, by comparing two halves of the pairs; about 0 or negative where noise "
    "hides the gradient.",
    "pes/accumulator_norm": "Mean norm of the particles' accumulators; 0 for agents "
    "without them.",
    "pes/critic_explained": "Share of the variance of its targets that the critic "
    "predicts, which contain its own values; with critic_discount.",
    "pes/ended_share": "Episodes that ended, in shares of the particles, in an update.",
    "pes/dropped_simulations": "Simulations that diverged, since the start.",
    "pes/lost_workers": "Ray workers lost, since the start.",
}
"""Columns of `progress.csv`, which are tags in TensorBoard, with their descriptions.

The names are Stable-Baselines3's where it has one.
"""


def clock_row(counters: Counters) -> dict[str, float]:
    """Columns of every row: steps, updates, time and speed."""
    return {
        "time/total_timesteps": counters.timesteps,
        "time/iterations": counters.iterations,
        "time/time_elapsed": round(counters.wall_seconds, 3),
        "time/fps": round(counters.steps_per_second, 1),
    }


def training_row(
    state: TrainState,
    reports: Report,
    counters: Counters,
    learner: Learner,
    reward_shift: float,
) -> dict[str, float]:
    """Columns of the last updates: means over their reports.

    Args:
        state: After the updates.
        reports: NumPy arrays with a leading axis over the updates.
        counters: After the updates.
        learner: The run's learner.
        reward_shift: What training subtracted from each reward; it is added back. One
            that changes over the run is in no report's episode losses.
    """
    episodes = reports.episodes.sum()
    row = {
        "train/learning_rate": float(learner.learning_rate(state)),
        "train/theta_norm": float(np.linalg.norm(np.asarray(state.theta, np.float64))),
        "pes/gradient_norm": float(reports.gradient_norm.mean()),
        "pes/signal_to_noise": float(reports.signal_to_noise.mean()),
        "pes/accumulator_norm": float(reports.accumulator_norm.mean()),
        "pes/ended_share": float(episodes / reports.particle_loss.size),
        "pes/dropped_simulations": counters.dropped_simulations,
        "pes/lost_workers": counters.lost_workers,
    }
    if reports.critic_explained is not None:
        row["pes/critic_explained"] = float(reports.critic_explained.mean())
    sigma = learner.sigma(state)
    if sigma is not None:
        row["train/sigma"] = float(sigma)
    scheduled = learner.reward_shift(state)
    if scheduled is not None:
        row["train/reward_shift"], reward_shift = float(scheduled), 0.0
    if episodes > 0:
        length = float(reports.episode_steps.sum() / episodes)
        loss = float(reports.episode_loss.sum() / episodes)
        row["rollout/ep_rew_mean"] = return_from_loss(loss, length, reward_shift)
        row["rollout/ep_len_mean"] = length
    return row


def evaluation_row(evaluation: Evaluation) -> dict[str, float]:
    """Columns of an evaluation."""
    return {
        "eval/mean_reward": float(evaluation.returns.mean()),
        "eval/std_reward": float(evaluation.returns.std()),
        "eval/mean_ep_length": float(evaluation.lengths.mean()),
        "eval/diverged_episodes": int(evaluation.diverged.sum()),
    }


def returns_so_far(counters: Counters) -> str:
    """The last and the best evaluation, as text."""
    last, best = counters.last_return, counters.best_return
    note = "no evaluation yet" if last is None else f"return {last:.5g}"
    return note if best is None else f"{note} (best {best:.5g})"


def distributions(
    state: TrainState, particle_returns: np.ndarray, horizon: int | None
) -> dict[str, np.ndarray]:
    """Distributions over the particles: returns in the last unroll, episode phases.

    Args:
        state: State of the run.
        particle_returns: # shape=(N,)
        horizon: Steps of the longest episode.
    """
    values = {"particles/return": particle_returns}
    for part in jax.tree.leaves(state.estimator, is_leaf=_is_particles):
        if _is_particles(part):
            values["particles/phase"] = on_host(part.clock.elapsed) / horizon
    return values


def summarize(
    config: TrainConfig,
    counters: Counters,
    final: Evaluation | None,
    *,
    interrupted: bool,
    ended_by: str,
) -> dict[str, Any]:
    """Content of `summary.json`.

    Args:
        config: The settings.
        counters: At the end.
        final: The final evaluation, of the last parameters. None where there was none,
            or where it counts for nothing: then `final_return` is None too, and
            `last_return` is that of the evaluation at `last_return_timesteps`.
        interrupted: Whether the run was interrupted.
        ended_by: Why it ended.
    """
    return {
        "env": config.env,
        "agent": config.agent,
        "seed": config.seed,
        "total_timesteps": counters.timesteps,
        "wall_seconds": round(counters.wall_seconds, 3),
        "steps_per_second": round(counters.steps_per_second, 1),
        "final_return": None if final is None else float(final.returns.mean()),
        "final_return_std": None if final is None else float(final.returns.std()),
        "final_episodes": 0 if final is None else len(final.returns),
        "last_return": counters.last_return,
        "last_return_timesteps": counters.last_return_timesteps,
        "best_return": counters.best_return,
        "threshold": config.threshold,
        "timesteps_to_threshold": counters.timesteps_to_threshold,
        "dropped_simulations": counters.dropped_simulations,
        "lost_workers": counters.lost_workers,
        "interrupted": interrupted,
        "ended_by": ended_by,
    }


def _is_particles(part: Any) -> bool:
    return isinstance(part, Particles)
