"""Gradient estimates summed over one episode with theta fixed, for many episodes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pes_rl.agents import Estimator
from pes_rl.analysis.subject import Subject
from pes_rl.envs import Rollout
from pes_rl.runtime.progress import Progress


def check_agents(subject: Subject, estimators: list[Estimator]) -> None:
    """Raise `ValueError` unless all agents can run on the subject."""
    for estimator in estimators:
        count_unrolls(estimator, subject.horizon)
        init = partial(estimator.init, subject.rollout, subject.theta)
        key = jax.random.key(0)
        if subject.rollout.on_device:
            jax.eval_shape(init, key)
        else:
            init(key)


def count_unrolls(estimator: Estimator, horizon: int) -> int:
    """Number of unrolls in one episode of T steps, T / K.

    Raises:
        ValueError: If K does not divide T.
    """
    length = getattr(estimator, "truncation_length", horizon)
    if horizon % length:
        raise ValueError(
            f"truncation_length={length} does not divide the episode of {horizon} "
            "steps; use one that does"
        )
    return horizon // length


class Episodes(Progress):
    """Progress display over the episodes of a measurement.

    Args:
        label: What is measured.
        total: Episodes of all its parts.
    """

    def __init__(self, label: str, total: int) -> None:
        super().__init__(label, total, "episodes")
        self._done = 0

    def add(self, number: int, what: str) -> None:
        """Add finished episodes of one part of the measurement."""
        self._done += number
        self.update(self._done, what)


def episode_estimates(
    subject: Subject,
    estimator: Estimator,
    repeats: int,
    seed: int,
    add: Callable[[int], None] = lambda episodes: None,
) -> np.ndarray:
    """Estimates summed over one episode with theta fixed, from independent starts.

    Args:
        subject: The problem.
        estimator: The agent.
        repeats: Episodes R.
        seed: Of their randomness.
        add: Called with the number of episodes that are done since the last call.

    Returns:
        # shape=(R, D), dtype=float64

    Raises:
        ValueError: If the agent cannot run here, or episodes ended before their last
            step: then the sum is not that of one episode.
    """
    if repeats < 2:
        raise ValueError(f"repeats={repeats} must be at least 2; use 100, for example")
    unrolls = count_unrolls(estimator, subject.horizon)
    keys = jax.random.split(jax.random.key(seed), repeats)
    if subject.rollout.on_device:
        run = partial(_one_episode, subject.rollout, estimator, unrolls)
        gradients, ends = jax.block_until_ready(
            jax.jit(lambda theta, keys: lax.map(partial(run, theta), keys))(
                subject.theta, keys
            )
        )
        add(repeats)
    else:
        gradients, ends = _host_episodes(subject, estimator, unrolls, keys, add)
    if bool(jnp.any(ends)):
        raise ValueError(
            f"episodes of {subject.env} ended before step {subject.horizon}; a study "
            "over whole episodes needs them all of one length, set a lower horizon"
        )
    return np.asarray(gradients, np.float64)


def _one_episode(
    rollout: Rollout, estimator: Any, unrolls: int, theta: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(sum of the estimates [D], whether an episode ended early)."""
    init_key, key = jax.random.split(key)
    state = estimator.init(rollout, theta, init_key)

    def update(state: Any, key: jax.Array) -> tuple[Any, Any]:
        gradient, state, report = estimator.estimate(rollout, theta, state, key)
        return state, (gradient, report.episodes)

    _, (gradients, ends) = lax.scan(update, state, jax.random.split(key, unrolls))
    return gradients.sum(0), ends[:-1].any()


def _host_episodes(
    subject: Subject,
    estimator: Any,
    unrolls: int,
    keys: jax.Array,
    add: Callable[[int], None],
) -> tuple[jax.Array, jax.Array]:
    sums, early = [], []
    for tenth in np.array_split(np.arange(len(keys)), 10):
        for number in tenth:
            one, ended = _host_episode(subject, estimator, unrolls, keys[number])
            sums.append(one)
            early.append(ended)
        add(len(tenth))
    return jnp.stack(sums), jnp.stack(early)


def _host_episode(
    subject: Subject, estimator: Any, unrolls: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One episode of a host rollout; returns the same as `_one_episode`."""
    init_key, key = jax.random.split(key)
    state = estimator.init(subject.rollout, subject.theta, init_key)
    gradients, ends = [], []
    for update_key in jax.random.split(key, unrolls):
        gradient, state, report = estimator.estimate(
            subject.rollout, subject.theta, state, update_key
        )
        gradients.append(gradient)
        ends.append(report.episodes)
    return sum(gradients, jnp.zeros_like(subject.theta)), jnp.stack(ends)[:-1].any()
