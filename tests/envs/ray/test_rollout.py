"""Rollouts shared by workers: the same to the bit, whichever worker is lost.

The pool is in this process; tests/envs/ray/test_pool.py tests that of Ray.
"""

import sys
from functools import cache, partial
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worker_pools import LocalWorkerPool, counting_worker

from pes_rl.agents import ES, GPES, NRES, PES, RandomSearch, TruncatedES
from pes_rl.assembly.assemble import assemble
from pes_rl.config.train_config import make_config
from pes_rl.envs import ObservationMoments
from pes_rl.envs.ray.rollout import RayRollout
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig

pytestmark = pytest.mark.user_compilation

NUM_PAIRS = 6
THETA = jnp.array([0.3, -0.2])
STEP = OptimizerConfig("sgd", 0.01)


def on_workers(num_workers: int, can_copy: bool = True) -> Any:
    pool = LocalWorkerPool(partial(counting_worker, can_copy), num_workers)
    return RayRollout(pool, 20, can_copy)


def train(
    rollout: Any,
    estimator: Any,
    dies_at: int | None = None,
    joins_at: int | None = None,
) -> Any:
    """State and reports after five updates.

    Args:
        dies_at: Update in which worker 1 dies.
        joins_at: Update from which on all workers have started.
    """
    empty = ObservationMoments.empty(2)
    learner = Learner(rollout, estimator, STEP, 10_000, observations=empty)
    state, reports = learner.init(THETA, jax.random.key(4)), []
    for update in range(5):
        if update == dies_at:
            rollout.pool.dying = {1}
        if update == joins_at:
            rollout.pool.absent = set()
        state, report = learner.run(state, 1)
        reports.append(report)
    return state, reports


ESTIMATORS = {
    "pes": PES(NUM_PAIRS, 4, 0.5, stagger=True),
    "pes, restarting": PES(NUM_PAIRS, 4, 0.5, restart_at_once=True),
    "pes, in chunks": PES(NUM_PAIRS, 4, 0.5, stagger=True, pairs_per_chunk=3),
    "pes, critic": PES(NUM_PAIRS, 4, 0.5, stagger=True, critic_discount=0.9),
    "gpes": GPES(NUM_PAIRS, 4, 8, 0.5),
    "nres": NRES(NUM_PAIRS, 4, 0.5, orthogonal=True),
    "es": ES(NUM_PAIRS, 0.5, orthogonal=True),
    "truncated-es": TruncatedES(NUM_PAIRS, 4, 0.5),
    "random-search": RandomSearch(2 * NUM_PAIRS, 0.5),
}


@cache
def train_alone(name: str) -> Any:
    """State and reports of the run that others are compared with."""
    return train(counting.host_rollout(), ESTIMATORS[name])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_number_of_workers_gives_the_same_run_to_the_bit(name):
    """All pairs in one worker and in unequal shares; the next test has equal ones."""
    alone, expected = train_alone(name)
    for num_workers in (1, 4):
        state, reports = train(on_workers(num_workers), ESTIMATORS[name])
        jax.tree.map(np.testing.assert_array_equal, (state, reports), (alone, expected))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_with_copies_a_lost_worker_changes_nothing(name):
    alone, expected = train_alone(name)
    state, reports = train(on_workers(3), ESTIMATORS[name], dies_at=2)
    jax.tree.map(np.testing.assert_array_equal, (state, reports), (alone, expected))


def test_whole_episodes_are_played_again_from_their_start():
    alone, expected = train(on_workers(3, can_copy=False), ESTIMATORS["es"])
    state, reports = train(on_workers(3, can_copy=False), ESTIMATORS["es"], dies_at=2)
    jax.tree.map(np.testing.assert_array_equal, (state, reports), (alone, expected))


def test_without_copies_running_episodes_are_lost_and_accumulators_cleared():
    rollout = on_workers(3, can_copy=False)
    estimator = PES(NUM_PAIRS, 2, 0.1)
    state = estimator.init(rollout, THETA, jax.random.key(0))
    _, state, _ = estimator.estimate(rollout, THETA, state, jax.random.key(1))
    assert np.asarray(state.accumulator).any(1).all()
    rollout.pool.dying = {1}  # It has particles 4 to 7.
    _, after, report = estimator.estimate(rollout, THETA, state, jax.random.key(2))
    lost = np.arange(12) // 4 == 1
    np.testing.assert_array_equal(report.arrived, ~lost)
    np.testing.assert_array_equal(np.asarray(after.accumulator).any(1), ~lost)
    np.testing.assert_array_equal(after.particles.clock.episode, np.where(lost, 1, 0))
    np.testing.assert_array_equal(after.particles.clock.elapsed, np.where(lost, 0, 4))
    assert not np.asarray(report.particle_loss)[lost].any()
    assert not after.particles.loss[lost].any()
    assert report.env_steps == 8 * 2
    for count in (report.episodes, report.episode_steps, report.episode_loss):
        assert float(count) == 0
    # The keys of the particles decide the new episodes, which begin now.
    _, later, report = estimator.estimate(rollout, THETA, after, jax.random.key(3))
    assert (later.particles.clock.elapsed[lost] == 2).all()
    assert report.arrived.all()
    whole = on_workers(1, can_copy=False)
    first = whole.reset(jax.random.key(0), NUM_PAIRS)
    begun = whole.pool.workers[0].begin(whole._next_episodes(_later(first.clock)))
    drawn = later.particles.state.observation[lost, 1]
    np.testing.assert_array_equal(drawn, begun.state.observation[lost, 1])


def test_without_copies_a_missing_worker_loses_only_its_own_particles():
    rollout = on_workers(3, can_copy=False)
    rollout.pool.absent = {1}
    estimator = PES(NUM_PAIRS, 2, 0.1)
    state = estimator.init(rollout, THETA, jax.random.key(0))
    absent = np.arange(12) // 4 == 1
    for update in range(3):
        if update == 2:  # It joins.
            rollout.pool.absent = set()
        assert not state.particles.clock.elapsed[absent].any()
        key = jax.random.key(update + 1)
        _, state, report = estimator.estimate(rollout, THETA, state, key)
        np.testing.assert_array_equal(report.arrived, ~absent | (update == 2))
        if update == 0:
            assert report.env_steps == 2 * 8
    # It starts the same episodes as if it had been there from the beginning.
    assert (state.particles.clock.elapsed[absent] == 2).all()
    all_there = on_workers(3, can_copy=False)
    expected = all_there.reset(jax.random.key(0), NUM_PAIRS).state.observation
    np.testing.assert_array_equal(
        state.particles.state.observation[absent, 1], expected[absent, 1]
    )


@pytest.mark.parametrize("name", ["es", "random-search"])
def test_whole_episodes_are_played_by_the_started_workers(name):
    alone, expected = train_alone(name)
    rollout = on_workers(3, can_copy=False)
    rollout.pool.absent = {0}
    state, reports = train(rollout, ESTIMATORS[name], joins_at=2)
    np.testing.assert_array_equal(state.theta, alone.theta)
    jax.tree.map(np.testing.assert_array_equal, reports, expected)


def _later(clock: Any) -> Any:
    return jax.tree.map(
        np.asarray,
        clock.__class__(clock.seed, clock.episode, clock.elapsed + 1, clock.limit),
    )


def test_theta_is_kept_where_all_particles_are_lost():
    rollout = on_workers(1, can_copy=False)
    learner = Learner(rollout, PES(NUM_PAIRS, 2, 0.1), STEP, 10_000)
    state, _ = learner.run(learner.init(THETA, jax.random.key(0)), 1)
    rollout.pool.dying = {0}
    after, report = learner.run(state, 1)
    np.testing.assert_array_equal(after.theta, state.theta)
    assert after.updates == 2 and report.env_steps.sum() == 0


def test_one_row_of_parameters_is_shared_by_all_workers():
    segments = []
    for rollout in (on_workers(3), counting.host_rollout()):
        start = rollout.reset(jax.random.key(3), NUM_PAIRS)
        segments.append(rollout.unroll(start, jnp.array([[1.5, -0.5]]), 12)[1])
    jax.tree.map(np.testing.assert_array_equal, *segments)


def test_more_workers_than_pairs_are_refused():
    with pytest.raises(ValueError, match="workers=3 are more than the 2 pairs"):
        on_workers(3).reset(jax.random.key(0), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 2}, r"workers=2 need Ray: pip install 'pes-rl\[ray\]'"),
        ({"workers": -1}, "workers=-1 must be 0"),
        ({"ray_address": "auto"}, "ray_address='auto' has no meaning without workers"),
        (
            {"workers": 1, "ray_address": "ray://head:10001"},
            "is Ray Client's; start the training on a machine of the cluster",
        ),
        ({"workers": 1, "env": "jax:swimmer"}, "drop it for jax:swimmer"),
    ],
)
def test_invalid_settings_raise_an_error_with_a_remedy(settings, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "pes_rl.envs.ray.pool", raising=False)
    env = settings.get("env", "swimmer")
    options = {name: value for name, value in settings.items() if name != "env"}
    with pytest.raises(ValueError, match=message):
        assemble(make_config(env, "pes", **options))
