"""Every native MuJoCo task beside Gymnasium's environment of the same name."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from typing import Any

import gymnasium
import numpy as np
import pytest

from pes_rl.benchmarks.agreement import measure_agreement
from pes_rl.envs.mujoco.environment import MujocoEnvironment
from pes_rl.envs.mujoco.tasks import TASKS
from pes_rl.envs.names import NATIVE_NAMES
from pes_rl.envs.registry import native_equivalent

ENDS_EARLY = {
    "ant",
    "hopper",
    "humanoid",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "walker2d",
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_steps_as_gymnasiums_over_whole_episodes(name):
    """Same states and actions, some beyond the bounds, ends and resets: within 1e-9.

    Three simulations, of which the middle one is followed: two episodes, or 300 steps.
    """
    agreement = measure_agreement(name, max_steps=300)
    assert agreement.difference < 1e-9
    assert agreement.ends_agree
    assert (agreement.early_ends > 0) == (name in ENDS_EARLY)


def test_every_task_has_its_name_in_the_registry():
    assert set(NATIVE_NAMES) == set(TASKS)
    assert native_equivalent("gym:HalfCheetah-v5") == "halfcheetah"
    assert native_equivalent("gym:Pendulum-v1") is None


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_spaces_and_the_horizon_of_gymnasiums(name):
    ours = MujocoEnvironment(name, num_threads=1)
    theirs: Any = gymnasium.make(TASKS[name].gymnasium_id)
    assert (ours.observation_size,) == theirs.observation_space.shape
    np.testing.assert_array_equal(ours.action_low, theirs.action_space.low)
    np.testing.assert_array_equal(ours.action_high, theirs.action_space.high)
    assert ours.horizon == theirs.spec.max_episode_steps
    theirs.close()


@pytest.mark.parametrize("name", TASKS)
def test_first_states_are_distributed_as_gymnasiums(name):
    """Mean and spread of each observed coordinate over 300 resets of either.

    Five standard errors of a difference of means: probability 6e-7 a coordinate.
    """
    count = 300
    ours = MujocoEnvironment(name, num_threads=1)
    ours.allocate(count)
    keys = np.stack([np.arange(count), np.full(count, 9)], axis=1).astype(np.uint32)
    ours.reset(np.arange(count), keys)
    theirs: Any = gymnasium.make(TASKS[name].gymnasium_id)
    theirs_first = []
    for seed in range(count):
        theirs.reset(seed=seed)
        data = theirs.unwrapped.data
        theirs_first.append(np.concatenate([data.qpos, data.qvel]))
    a = np.concatenate([ours._fields["qpos"], ours._fields["qvel"]], axis=1)
    b = np.asarray(theirs_first)
    error = np.sqrt((a.var(0) + b.var(0)) / count) + 1e-12
    assert np.abs((a.mean(0) - b.mean(0)) / error).max() < 5
    np.testing.assert_allclose(a.std(0), b.std(0), rtol=0.3, atol=1e-12)
    np.testing.assert_allclose(a.max(0), b.max(0), rtol=0.5, atol=5e-3)
    theirs.close()
