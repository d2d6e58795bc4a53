"""Episode bookkeeping, against loops."""

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.envs.rollout.episodes import (
    NO_LIMIT,
    Clock,
    Segment,
    advance_clock,
    episode_keys,
    record_step,
    running_loss,
    split_loss,
    start_clock,
    steps_to_limit,
)

NAMESPACES = {"numpy": np.asarray, "jax": jnp.asarray}


def clock(elapsed, limit, episode=0):
    n = len(elapsed)
    return Clock(
        seed=np.zeros((n, 2), np.uint32),
        episode=np.full(n, episode, np.int32),
        elapsed=np.array(elapsed, np.int32),
        limit=np.array(limit, np.int32),
    )


def random_segment(seed, num_steps=7, num_particles=200):
    """Whole-numbered losses, whose sums are exact, and ends at one step in four."""
    generator = np.random.default_rng(seed)
    shape = (num_steps, num_particles)
    ended = generator.random(shape) < 0.25
    return Segment(
        loss=generator.integers(-50, 50, shape).astype(np.float32),
        ended=ended,
        diverged=np.zeros(shape, bool),
        simulated=np.ones(shape, bool),
    )


@pytest.mark.parametrize(
    ("num_pairs", "horizon", "limits"),
    [
        (1, 10, [10]),
        (5, 10, [2, 4, 6, 8, 10]),
        (4, 10, [2, 5, 7, 10]),
        (6, 3, [1, 1, 1, 2, 2, 3]),
    ],
)
def test_staggering_spreads_the_first_limits_over_the_episode(
    num_pairs, horizon, limits
):
    start = start_clock(jax.random.key(0), num_pairs, horizon, stagger=True)
    np.testing.assert_array_equal(start.limit, np.repeat(limits, 2))
    assert not start.elapsed.any()


def test_staggered_particles_show_all_phases_at_every_moment():
    start = start_clock(jax.random.key(0), 5, 10, stagger=True)
    now = jax.tree.map(np.asarray, start)
    nothing = np.zeros(10, np.float32)
    for step in range(1, 50):
        now, _ = record_step(
            now,
            nothing,
            nothing > 0,
            nothing == 0,
            next_limit=10,
            diverged_loss=0.0,
        )
        if step >= 10:
            phases = np.sort(now.elapsed[::2])
            np.testing.assert_array_equal(np.diff(phases), 2)


def test_staggering_without_a_horizon_is_refused():
    with pytest.raises(ValueError, match="stagger needs a finite horizon"):
        start_clock(jax.random.key(0), 2, None, stagger=True)


@pytest.mark.parametrize("horizon", [0, -5, 2.5, 2**31, 2**32, 10**10])
def test_a_time_limit_is_a_number_that_int32_holds(horizon):
    """Of 2^32 steps the low word is 0: each episode would end with its first step."""
    with pytest.raises(ValueError, match=f"horizon={horizon} must be a whole number"):
        start_clock(jax.random.key(0), 2, horizon)


@pytest.mark.parametrize("horizon", [7, None])
def test_without_staggering_every_limit_is_the_horizon(horizon):
    start = start_clock(jax.random.key(0), 3, horizon)
    np.testing.assert_array_equal(start.limit, np.full(6, horizon or NO_LIMIT))


@pytest.mark.parametrize("members", [1, 2])
def test_pair_members_share_their_seed_and_other_pairs_differ(members):
    seed = np.asarray(start_clock(jax.random.key(0), 50, 7, members=members).seed)
    assert seed.shape == (50 * members, 2)
    for member in range(members):
        np.testing.assert_array_equal(seed[member::members], seed[::members])
    assert len(np.unique(seed, axis=0)) == 50


def test_other_keys_give_other_seeds():
    one = start_clock(jax.random.key(0), 5, 7).seed
    other = start_clock(jax.random.key(1), 5, 7).seed
    assert (one != other).any(1).all()


def test_a_key_belongs_to_the_pair_and_the_episode_alone():
    """Members that are in other episodes still share the key of their j-th ones."""
    seed = np.asarray(start_clock(jax.random.key(0), 2, 7).seed)
    keys = np.stack([episode_keys(seed, np.full(4, j, np.int32)) for j in range(20)])
    np.testing.assert_array_equal(keys[:, 0::2], keys[:, 1::2])
    assert len(np.unique(keys[:, ::2].reshape(-1, 2), axis=0)) == 40
    staggered = np.array([3, 5, 0, 19], np.int32)
    np.testing.assert_array_equal(
        episode_keys(seed, staggered), keys[staggered, np.arange(4)]
    )


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_members_begin_their_jth_episodes_alike_though_at_different_steps(driver):
    rollout = counting.ROLLOUTS[driver](7)
    particles = rollout.reset(jax.random.key(2), 3)
    half = np.array([[[1.0, -1.0]], [[-2.0, -2.0]], [[0.3, 0.1]]], np.float32)
    thetas = jnp.asarray(np.concatenate([half, -half], axis=1).reshape(6, 2))
    tides = [{0: tide} for tide in counting.observation_of(particles)[:, 1]]
    begun = [{0: 0} for _ in range(6)]
    for step in range(1, 31):
        particles, segment = rollout.unroll(particles, thetas, 1)
        for i in np.flatnonzero(segment.ended[0]):
            episode = int(particles.clock.episode[i])
            observation = counting.observation_of(particles)[i]
            assert observation[0] == 0
            tides[i][episode] = observation[1]
            begun[i][episode] = step
    for positive, negative in [(0, 1), (2, 3), (4, 5)]:
        shared = tides[positive].keys() & tides[negative].keys()
        assert len(shared) > 3
        assert all(tides[positive][j] == tides[negative][j] for j in shared)
    assert any(begun[2][j] != begun[3][j] for j in begun[2].keys() & begun[3].keys())
    assert len({tuple(t[j] for j in range(4)) for t in tides}) == 3


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_step_is_recorded_by_the_rules(namespace):
    """No end, terminated, time limit, both, NaN, infinite, and one not running."""
    asarray = NAMESPACES[namespace]
    before = jax.tree.map(asarray, clock([0, 1, 4, 4, 2, 2, 3], [5] * 7, episode=6))
    loss = asarray(np.array([1, 2, 3, 4, np.nan, -np.inf, 9], np.float32))
    terminated = asarray(np.array([0, 1, 0, 1, 0, 0, 1], bool))
    running = asarray(np.array([1, 1, 1, 1, 1, 1, 0], bool))
    after, row = record_step(
        before, loss, terminated, running, next_limit=8, diverged_loss=-7.0
    )
    np.testing.assert_array_equal(row.loss, [1, 2, 3, 4, -7, -7, 0])
    np.testing.assert_array_equal(row.ended, [0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(row.diverged, [0, 0, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(row.simulated, [1, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(after.episode, [6, 7, 7, 7, 7, 7, 6])
    np.testing.assert_array_equal(after.elapsed, [1, 0, 0, 0, 0, 0, 3])
    np.testing.assert_array_equal(after.limit, [5, 8, 8, 8, 8, 8, 5])
    assert row.loss.dtype == np.float32
    assert after.elapsed.dtype == after.episode.dtype == after.limit.dtype == np.int32


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_an_endless_episode_outlives_its_counter(namespace):
    now = jax.tree.map(NAMESPACES[namespace], clock([NO_LIMIT - 4], [NO_LIMIT]))
    nothing = NAMESPACES[namespace](np.zeros(1, np.float32))
    for _ in range(8):
        now, row = record_step(
            now,
            nothing,
            nothing > 0,
            nothing == 0,
            next_limit=NO_LIMIT,
            diverged_loss=0.0,
        )
        assert not row.ended.any()
        assert NO_LIMIT - 4 < now.elapsed[0] < NO_LIMIT
    assert now.limit[0] == NO_LIMIT


def test_advancing_by_several_steps_is_recording_them_one_by_one():
    """Three running particles, one that has stopped, and one without a time limit."""
    now = clock([0, 3, 7, 0], [9, 9, 9, NO_LIMIT], episode=2)
    for running in ([1, 1, 0, 1], [1, 1, 1, 1]):
        running = np.array(running, bool)
        left = steps_to_limit(now, running)
        assert left == (6 if not running.all() else 2)
        one_by_one = now
        for step in range(left):
            at_once = advance_clock(now, running, step)
            jax.tree.map(np.testing.assert_array_equal, at_once, one_by_one)
            assert at_once.elapsed.dtype == np.int32
            one_by_one, row = record_step(
                one_by_one,
                np.zeros(4, np.float32),
                np.zeros(4, bool),
                running,
                next_limit=9,
                diverged_loss=0.0,
            )
            assert row.ended.any() == (step == left - 1)


def test_an_end_without_a_horizon_begins_an_episode_without_a_limit():
    after, _ = record_step(
        clock([3], [5]),
        np.zeros(1, np.float32),
        np.array([True]),
        np.array([True]),
        next_limit=NO_LIMIT,
        diverged_loss=0.0,
    )
    assert after.limit[0] == NO_LIMIT


def test_split_loss_credits_the_ending_step_to_the_old_episode():
    segment = random_segment(seed=0)
    old, new = (np.asarray(part) for part in split_loss(segment))
    assert (segment.ended.sum(0) == 0).any()
    assert (segment.ended.sum(0) >= 2).any()
    for i in range(segment.loss.shape[1]):
        sums, part = [0.0, 0.0], 0
        for loss, ended in zip(segment.loss[:, i], segment.ended[:, i], strict=True):
            sums[part] += loss
            if ended:
                part = 1
        assert [old[i], new[i]] == sums


def test_running_loss_is_that_of_the_episode_under_way():
    segment = random_segment(seed=1)
    before = np.arange(segment.loss.shape[1], dtype=np.float32)
    after = running_loss(before, segment)
    for i, total in enumerate(before):
        for loss, ended in zip(segment.loss[:, i], segment.ended[:, i], strict=True):
            total = 0.0 if ended else total + loss
        assert after[i] == total
