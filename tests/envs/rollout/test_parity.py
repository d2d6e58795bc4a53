"""Both drivers give the same segments, and episodes mean the same on either."""

from dataclasses import dataclass
from functools import cache

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.envs import DeviceRollout, Particles, Rollout, Segment

pytestmark = pytest.mark.user_compilation

NUM_PAIRS = 4
NUM_PARTICLES = 2 * NUM_PAIRS


@dataclass(frozen=True)
class Scenario:
    """What is unrolled: `num_unrolls` unrolls of `length` steps each."""

    length: int
    horizon: int = 20
    diverges_at: int | None = None
    stagger: bool = False
    single_episode: bool = False
    num_unrolls: int = 3


SCENARIOS = {
    "early ends": Scenario(length=5),
    "several ends in one unroll": Scenario(length=25, num_unrolls=1),
    "staggered": Scenario(length=4, horizon=5, stagger=True),
    "time limits": Scenario(length=4, horizon=5),
    "divergence": Scenario(length=5, diverges_at=3),
    "single episodes": Scenario(length=20, single_episode=True, num_unrolls=2),
}


def make(driver: str, scenario: Scenario) -> Rollout:
    return counting.ROLLOUTS[driver](
        scenario.horizon, diverged_loss=2.5, diverges_at=scenario.diverges_at
    )


def all_thetas(num_unrolls: int, num_particles: int = NUM_PARTICLES) -> jax.Array:
    """Antithetic parameters for each unroll."""
    half = jax.random.normal(
        jax.random.key(5), (num_unrolls, num_particles // 2, 1, counting.NUM_PARAMETERS)
    )
    thetas = 2 * jnp.concatenate([half, -half], axis=2)
    return thetas.reshape(num_unrolls, num_particles, counting.NUM_PARAMETERS)


@cache
def run(driver: str, name: str) -> list[tuple[Particles, Segment]]:
    """Particles and segment of each unroll of a scenario."""
    scenario = SCENARIOS[name]
    rollout = make(driver, scenario)
    particles = rollout.reset(jax.random.key(3), NUM_PAIRS, stagger=scenario.stagger)
    history = []
    for thetas in all_thetas(scenario.num_unrolls):
        particles, segment = rollout.unroll(
            particles,
            thetas,
            scenario.length,
            single_episode=scenario.single_episode,
        )
        history.append((particles, segment))
    return history


def assert_same_particles(one: Particles, other: Particles) -> None:
    jax.tree.map(np.testing.assert_array_equal, one.clock, other.clock)
    np.testing.assert_array_equal(one.loss, other.loss)
    np.testing.assert_array_equal(
        counting.observation_of(one), counting.observation_of(other)
    )


def stacked(name: str, driver: str = "host") -> Segment:
    """The scenario's segments, one after the other."""
    segments = [segment for _, segment in run(driver, name)]
    return jax.tree.map(lambda *rows: np.concatenate(rows), *segments)


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_drivers_give_identical_segments_clocks_and_running_losses(name):
    for on_device, on_host in zip(run("device", name), run("host", name), strict=True):
        jax.tree.map(np.testing.assert_array_equal, on_device[1], on_host[1])
        assert_same_particles(on_device[0], on_host[0])


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_segments_have_the_stated_shapes_and_dtypes(driver):
    segment = run(driver, "early ends")[0][1]
    for field, dtype in [
        (segment.loss, np.float32),
        (segment.ended, bool),
        (segment.diverged, bool),
        (segment.simulated, bool),
    ]:
        assert field.shape == (5, NUM_PARTICLES)
        assert field.dtype == dtype


def test_scenarios_hold_what_their_names_say():
    early = stacked("early ends").ended
    assert (early[:, 0::2] != early[:, 1::2]).any(), "members end at different steps"
    assert (stacked("several ends in one unroll").ended.sum(0) >= 3).any()
    assert (stacked("time limits").ended[4] & ~early[4]).any(), "the limit ends some"
    assert (stacked("time limits").ended[:4]).any(), "and others end before it"
    diverged = stacked("divergence").diverged.any(0)
    tides = counting.observation_of(run("host", "divergence")[0][0])[:, 1]
    assert set(tides[diverged] % 2) == {0, 1}, "rewards and observations"
    assert not diverged.all()
    assert not stacked("single episodes").simulated.all()


def test_a_time_limit_ends_an_episode_after_exactly_horizon_steps():
    rollout = counting.host_rollout(counting.SHORTEST_EPISODE)
    particles = rollout.reset(jax.random.key(0), NUM_PAIRS)
    _, segment = rollout.unroll(particles, all_thetas(1)[0], 10)
    expected = np.arange(1, 11) % counting.SHORTEST_EPISODE == 0
    np.testing.assert_array_equal(
        segment.ended, np.repeat(expected[:, None], NUM_PARTICLES, axis=1)
    )


def test_staggered_first_episodes_are_shorter_and_later_ones_whole():
    rollout = counting.host_rollout(horizon=4)
    particles = rollout.reset(jax.random.key(0), 4, stagger=True)
    still = jnp.zeros((8, counting.NUM_PARAMETERS))
    _, segment = rollout.unroll(particles, still, 12)
    for i in range(8):
        first = i // 2 + 1
        ends = np.flatnonzero(np.asarray(segment.ended)[:, i]) + 1
        np.testing.assert_array_equal(ends, np.arange(first, 13, 4))


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_divergence_ends_that_particle_alone_with_the_stated_loss(driver):
    """Up to its first divergence, each particle is as in a world without any."""
    segment = stacked("divergence", driver)
    sound = stacked("early ends", driver)
    assert np.isfinite(segment.loss).all()
    assert (segment.loss[segment.diverged] == 2.5).all()
    assert segment.ended[segment.diverged].all()
    for i in range(NUM_PARTICLES):
        steps = np.flatnonzero(segment.diverged[:, i])
        end = steps[0] if steps.size else len(segment.loss)
        np.testing.assert_array_equal(segment.loss[:end, i], sound.loss[:end, i])
        np.testing.assert_array_equal(segment.ended[:end, i], sound.ended[:end, i])


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_after_a_divergence_a_new_episode_begins_soundly(driver):
    history = run(driver, "divergence")
    assert any(segment.diverged.any() for _, segment in history)
    for particles, _ in history:
        assert np.isfinite(counting.observation_of(particles)).all()
        assert np.isfinite(particles.loss).all()
        np.testing.assert_array_equal(
            counting.observation_of(particles)[:, 0], particles.clock.elapsed
        )


class Overflowing(counting.HostCounting):
    """Pays particle 1 a reward that float64 holds and float32 does not."""

    def step(self, actions, ids):
        observation, reward, terminated = super().step(actions, ids)
        reward = reward.astype(np.float64)
        rows = np.arange(len(self.drift)) if ids is None else ids
        reward[rows == 1] = -1e300
        return observation, reward, terminated


def test_a_reward_beyond_float32_is_a_divergence_too():
    rollout = counting.host_rollout()
    rollout = type(rollout)(Overflowing(), counting.act, 20, diverged_loss=2.5)
    particles = rollout.reset(jax.random.key(0), 2)
    particles, segment = rollout.unroll(particles, all_thetas(1, 4)[0], 3)
    expected = np.repeat([[False, True, False, False]], 3, axis=0)
    np.testing.assert_array_equal(segment.diverged, expected)
    np.testing.assert_array_equal(segment.loss[:, 1], 2.5)
    assert np.isfinite(particles.loss).all()


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_a_single_episode_is_not_simulated_beyond_its_end(driver):
    for particles, segment in run(driver, "single episodes"):
        ended, simulated = np.asarray(segment.ended), np.asarray(segment.simulated)
        for i in range(NUM_PARTICLES):
            (end,) = np.flatnonzero(ended[:, i])
            assert simulated[: end + 1, i].all()
            assert not simulated[end + 1 :, i].any()
            assert not np.asarray(segment.loss)[end + 1 :, i].any()
        # All wait at the first step of their next episode.
        assert not np.asarray(particles.clock.elapsed).any()
        assert not np.asarray(particles.loss).any()
        assert not counting.observation_of(particles)[:, 0].any()
    np.testing.assert_array_equal(particles.clock.episode, 2)


def test_the_single_episode_count_is_what_the_environment_counted():
    rollout = counting.host_rollout()
    environment = rollout.environment
    assert isinstance(environment, counting.HostCounting)
    particles = rollout.reset(jax.random.key(3), NUM_PAIRS)
    _, segment = rollout.unroll(particles, all_thetas(1)[0], 20, single_episode=True)
    assert environment.steps_taken == segment.simulated.sum()
    assert segment.simulated.sum() < segment.simulated.size


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_single_episodes_are_the_first_episodes_of_a_plain_unroll(driver):
    rollout = make(driver, SCENARIOS["single episodes"])
    particles = rollout.reset(jax.random.key(3), NUM_PAIRS)
    thetas = all_thetas(1)[0]
    _, single = rollout.unroll(particles, thetas, 20, single_episode=True)
    _, plain = rollout.unroll(particles, thetas, 25)
    plain = jax.tree.map(lambda rows: np.asarray(rows)[:20], plain)
    first = np.cumsum(plain.ended, axis=0) - plain.ended == 0
    np.testing.assert_array_equal(single.simulated, first)
    np.testing.assert_array_equal(single.loss, np.where(first, plain.loss, 0.0))


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_many_short_unrolls_equal_one_long_one(driver):
    rollout = make(driver, SCENARIOS["several ends in one unroll"])
    thetas = all_thetas(1)[0]
    start = rollout.reset(jax.random.key(3), NUM_PAIRS)
    long, whole = rollout.unroll(start, thetas, 25)
    particles, parts = start, []
    for _ in range(5):
        particles, part = rollout.unroll(particles, thetas, 5)
        parts.append(part)
    jax.tree.map(
        lambda all_rows, *rows: np.testing.assert_array_equal(
            all_rows, np.concatenate(rows)
        ),
        whole,
        *parts,
    )
    assert_same_particles(long, particles)


@pytest.mark.parametrize("single_episode", [False, True])
@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_one_row_serves_all_particles(driver, single_episode):
    rollout = make(driver, SCENARIOS["single episodes"])
    start = rollout.reset(jax.random.key(3), NUM_PAIRS)
    row = jnp.array([[1.5, -0.5]])
    unrolls = [
        rollout.unroll(start, thetas, 12, single_episode=single_episode)
        for thetas in (row, jnp.tile(row, (NUM_PARTICLES, 1)))
    ]
    jax.tree.map(np.testing.assert_array_equal, *unrolls)
    assert unrolls[0][1].ended.any()


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_an_unroll_leaves_the_particles_that_it_was_given_alone(driver):
    rollout = make(driver, SCENARIOS["early ends"])
    start = rollout.reset(jax.random.key(3), NUM_PAIRS)
    thetas = all_thetas(1)[0]
    first = rollout.unroll(start, thetas, 5)
    again = rollout.unroll(start, thetas, 5)
    jax.tree.map(np.testing.assert_array_equal, first, again)


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_taken_particles_go_on_exactly_as_their_originals(driver):
    """In another order, some twice, and without some of the others."""
    rollout = make(driver, SCENARIOS["early ends"])
    particles = rollout.reset(jax.random.key(3), NUM_PAIRS)
    thetas = all_thetas(1)[0]
    particles, _ = rollout.unroll(particles, thetas, 5)
    indices = np.array([6, 1, 1, 0, 7, 2, 6, 5])
    taken = rollout.take(particles, indices)
    end, segment = rollout.unroll(particles, thetas, 25)
    taken_end, taken_segment = rollout.unroll(taken, thetas[indices], 25)
    jax.tree.map(
        lambda all_columns, columns: np.testing.assert_array_equal(
            np.asarray(all_columns)[:, indices], columns
        ),
        segment,
        taken_segment,
    )
    assert segment.ended.sum() > 3
    assert_same_particles(rollout.take(end, indices), taken_end)


def test_taking_from_an_environment_that_cannot_copy_says_what_to_use():
    rollout = counting.host_rollout(can_copy=False)
    particles = rollout.reset(jax.random.key(3), NUM_PAIRS)
    assert not rollout.can_copy
    with pytest.raises(ValueError, match=r"cannot be copied; use .* pes or es"):
        rollout.take(particles, [0])


class Endless:
    """Pays its parameters."""

    def init(self, key):
        del key
        return jnp.float32(0)

    def step(self, theta, state):
        return state + 1, theta.sum(), jnp.array(False)


def test_an_endless_problem_is_cut_by_no_limit():
    rollout = DeviceRollout(Endless(), horizon=None)
    particles = rollout.reset(jax.random.key(0), 1)
    particles, segment = rollout.unroll(particles, jnp.ones((2, 1)), 3000)
    assert not segment.ended.any()
    np.testing.assert_array_equal(particles.clock.elapsed, 3000)
    np.testing.assert_array_equal(particles.state, 3000)


def test_losses_whose_sum_over_the_particles_overflows_end_nothing():
    thetas = jnp.full((4, 1), 3e38)
    assert not jnp.isfinite(thetas.sum())
    rollout = DeviceRollout(Endless(), horizon=5)
    particles = rollout.reset(jax.random.key(0), 2)
    particles, segment = rollout.unroll(particles, thetas, 4)
    assert not segment.ended.any() and not segment.diverged.any()
    np.testing.assert_array_equal(segment.loss, np.full((4, 4), np.float32(3e38)))
    np.testing.assert_array_equal(particles.clock.elapsed, 4)
