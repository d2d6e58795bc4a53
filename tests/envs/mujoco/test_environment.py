"""Native simulations as data: read, written, copied, stepped on threads."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from pes_rl.envs import HostRollout, Particles
from pes_rl.envs.mujoco import environment as native_mujoco
from pes_rl.envs.mujoco.environment import MujocoEnvironment

pytestmark = pytest.mark.user_compilation

NUM_PAIRS = 3
NUM_PARTICLES = 2 * NUM_PAIRS
NUM_PARAMETERS = 16


def act(thetas, observations):
    """A linear policy. # shape=(N, 2)"""
    weights = thetas.reshape(len(thetas), 2, 8)
    return np.matmul(weights, observations[..., None])[..., 0]


def rollout_of(environment, horizon=1000):
    return HostRollout(environment, act, horizon, diverged_loss=3.0)


def some_thetas():
    generator = np.random.default_rng(7)
    shape = (NUM_PARTICLES, NUM_PARAMETERS)
    return jnp.asarray(generator.normal(size=shape), jnp.float32)


def set_velocity(particles: Particles, index: int, value: float) -> Particles:
    """A copy in which one simulation's velocities are `value`."""
    model = MujocoEnvironment("swimmer").model
    data = mujoco.MjData(model)
    whole = mujoco.mjtState.mjSTATE_INTEGRATION
    rows, before = particles.state.simulation
    rows = rows.copy()
    mujoco.mj_setState(model, data, rows[index], whole)
    data.qvel[:] = value
    mujoco.mj_getState(model, data, rows[index], whole)
    state = type(particles.state)((rows, before), particles.state.observation)
    return type(particles)(state, particles.clock, particles.loss)


def test_first_states_spread_over_gymnasiums_noise_and_follow_the_key():
    environment = MujocoEnvironment("swimmer", num_threads=1)
    environment.allocate(200)
    keys = np.stack([np.arange(200), np.full(200, 9)], axis=1).astype(np.uint32)
    keys[1] = keys[0]
    observations = environment.reset(np.arange(200), keys)
    np.testing.assert_array_equal(observations[0], observations[1])
    assert len(np.unique(observations, axis=0)) == 199
    # None of 1592 draws in an outermost 0.75% of the range: probability 6e-6 a side.
    assert np.abs(observations).max() <= 0.1
    assert observations.min() < -0.0985
    assert observations.max() > 0.0985
    # Five standard errors of a mean of 200 on 8 coordinates: probability 5e-6.
    assert np.abs(observations.mean(0)).max() < 5 * 0.2 / np.sqrt(12 * 200)


def some_of(state: Any, ids: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[np.asarray(ids)], state)


def assert_same(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def actions_for(environment: MujocoEnvironment, *shape: int) -> np.ndarray:
    size = len(environment.action_low)
    return np.random.default_rng(0).uniform(-1, 1, (*shape, size))


# One that reads nothing but its state, one that compares with a field of the step
# before, and two that read fields which only a step computes.
every_kind = pytest.mark.parametrize(
    "name", ["swimmer", "humanoid", "ant", "inverted_double_pendulum"]
)


@every_kind
def test_resetting_some_leaves_the_other_simulations_alone(name):
    environment = MujocoEnvironment(name, num_threads=1)
    environment.allocate(4)
    keys = np.arange(8, dtype=np.uint32).reshape(4, 2)
    environment.reset(np.arange(4), keys)
    environment.step(actions_for(environment, 4), None)
    before = environment.save()
    environment.reset(np.array([2]), keys[:1])
    after = environment.save()
    assert_same(some_of(after, [0, 1, 3]), some_of(before, [0, 1, 3]))
    assert (after[0][2] != before[0][2]).any()


@every_kind
def test_stepping_some_is_stepping_them_among_all(name):
    environment = MujocoEnvironment(name, num_threads=1)
    environment.allocate(4)
    environment.reset(np.arange(4), np.arange(8, dtype=np.uint32).reshape(4, 2))
    before = environment.save()
    actions = actions_for(environment, 4)
    everyone = environment.step(actions, None)
    after = environment.save()
    ids = np.array([1, 3])
    environment.load(before)
    some = environment.step(actions[ids], ids)
    for all_rows, rows in zip(everyone, some, strict=True):
        np.testing.assert_array_equal(all_rows[ids], rows)
    assert_same(some_of(environment.save(), ids), some_of(after, ids))
    assert_same(some_of(environment.save(), [0, 2]), some_of(before, [0, 2]))


@every_kind
def test_states_written_back_go_on_identically(name):
    environment = MujocoEnvironment(name, num_threads=1)
    environment.allocate(3)
    environment.reset(np.arange(3), np.arange(6, dtype=np.uint32).reshape(3, 2))
    actions = actions_for(environment, 20, 3)
    for action in actions[:10]:
        environment.step(action, None)
    saved = environment.save()
    for action in actions[10:]:
        last = environment.step(action, None)
    other = MujocoEnvironment(name, num_threads=1)
    other.load(saved)
    assert_same(other.save(), saved)
    for action in actions[10:]:
        again = other.step(action, None)
    for one, two in zip(last, again, strict=True):
        np.testing.assert_array_equal(one, two)


def test_copied_simulations_go_on_identically():
    rollout = rollout_of(MujocoEnvironment("swimmer", num_threads=1), horizon=30)
    particles = rollout.reset(jax.random.key(0), NUM_PAIRS)
    thetas = some_thetas()
    particles, _ = rollout.unroll(particles, thetas, 20)
    indices = np.array([4, 0, 4])
    taken, taken_segment = rollout.unroll(
        rollout.take(particles, indices), thetas[indices], 20
    )
    after, segment = rollout.unroll(particles, thetas, 20)
    np.testing.assert_array_equal(segment.loss[:, indices], taken_segment.loss)
    np.testing.assert_array_equal(segment.ended[:, indices], taken_segment.ended)
    assert_same(some_of(after.state.simulation, indices), taken.state.simulation)
    assert segment.ended.any()


def test_any_number_of_threads_gives_the_same_bits():
    runs = []
    for num_threads in (1, 2, 8):
        rollout = rollout_of(MujocoEnvironment("swimmer", num_threads), horizon=60)
        particles = rollout.reset(jax.random.key(0), NUM_PAIRS, stagger=True)
        unrolls = []
        for _ in range(2):
            particles, segment = rollout.unroll(particles, some_thetas(), 50)
            unrolls.append((particles, segment))
        runs.append(unrolls)
    assert np.asarray(runs[0][0][1].loss).any()
    for other in runs[1:]:
        jax.tree.map(np.testing.assert_array_equal, runs[0], other)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_a_broken_simulation_ends_alone(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings into the working folder.
    rollout = rollout_of(MujocoEnvironment("swimmer", num_threads=2))
    start = rollout.reset(jax.random.key(0), NUM_PAIRS)
    thetas = some_thetas()
    sound_end, sound = rollout.unroll(start, thetas, 10)
    end, segment = rollout.unroll(set_velocity(start, 2, value), thetas, 10)

    expected = np.zeros((10, NUM_PARTICLES), bool)
    expected[0, 2] = True
    np.testing.assert_array_equal(segment.diverged, expected)
    np.testing.assert_array_equal(segment.ended, expected)
    assert segment.loss[0, 2] == 3.0
    others = np.array([0, 1, 3, 4, 5])
    np.testing.assert_array_equal(segment.loss[:, others], sound.loss[:, others])
    assert_same(
        some_of(end.state.simulation, others),
        some_of(sound_end.state.simulation, others),
    )
    assert np.isfinite(segment.loss).all()
    assert np.isfinite(end.state.observation).all()
    np.testing.assert_array_equal(end.clock.episode, [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(end.clock.elapsed, [10, 10, 9, 10, 10, 10])


def test_after_a_divergence_the_next_episode_is_that_of_any_other_end(
    tmp_path, monkeypatch
):
    """Nothing of the broken simulation is left in its state, nor in its warnings."""
    monkeypatch.chdir(tmp_path)
    rollout = rollout_of(MujocoEnvironment("swimmer", num_threads=1))
    start = rollout.reset(jax.random.key(0), NUM_PAIRS)
    thetas = some_thetas()
    broken, _ = rollout.unroll(set_velocity(start, 2, np.nan), thetas, 1)
    limited = rollout_of(rollout.environment, horizon=1)
    ended, _ = limited.unroll(limited.reset(jax.random.key(0), NUM_PAIRS), thetas, 1)
    assert_same(some_of(broken.state.simulation, 2), some_of(ended.state.simulation, 2))
    _, after = rollout.unroll(broken, thetas, 20)
    assert not after.diverged.any()


def test_a_policy_of_nans_diverges_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rollout = rollout_of(MujocoEnvironment("swimmer", num_threads=1))
    start = rollout.reset(jax.random.key(0), NUM_PAIRS)
    thetas = some_thetas()
    _, sound = rollout.unroll(start, thetas, 5)
    broken = thetas.at[3].set(jnp.nan)
    _, segment = rollout.unroll(start, broken, 5)
    others = np.arange(NUM_PARTICLES) != 3
    assert segment.diverged[:, 3].all()
    np.testing.assert_array_equal(segment.loss[:, 3], 3.0)
    np.testing.assert_array_equal(segment.loss[:, others], sound.loss[:, others])
    assert not segment.diverged[:, others].any()


def test_a_negative_number_of_threads_is_refused():
    with pytest.raises(ValueError, match="num_threads=-1 must be 0"):
        MujocoEnvironment("swimmer", num_threads=-1)


def test_mujocos_profiler_is_off_during_a_step_alone(monkeypatch):
    """Fails when MuJoCo no longer switches it on: then there is nothing to do."""
    clock, seen = native_mujoco._PROFILER_CLOCK, []
    on = clock.value
    assert on is not None
    environment = MujocoEnvironment("swimmer", num_threads=1)
    batch_step = environment._batch.step

    def step(*args: Any, **options: Any) -> None:
        seen.append(clock.value)
        batch_step(*args, **options)

    monkeypatch.setattr(environment._batch, "step", step)
    environment.step(np.zeros((1, 2)), None)
    assert seen == [None]
    assert clock.value == on
