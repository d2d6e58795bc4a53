"""Contact forces computed in the batch's step, beside one simulation after another.

All comparisons are to the bit unless they say otherwise.
"""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

import sys
from dataclasses import replace
from typing import Any

import gymnasium
import jax
import mujoco
import numpy as np
import pytest

from pes_rl.assembly.factories import make_policy, make_rollout
from pes_rl.config.train_config import make_config
from pes_rl.envs.mujoco import environment as native_mujoco
from pes_rl.envs.mujoco.contact_forces import can_compute_in_step
from pes_rl.envs.mujoco.environment import MujocoEnvironment
from pes_rl.envs.mujoco.tasks import TASKS, load_model

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="MuJoCo's functions are not found on Windows"
)
with_contact_forces = pytest.mark.parametrize(
    "name", [name for name, task in TASKS.items() if "cfrc_ext" in task.fields]
)


def one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> MujocoEnvironment:
    """An environment that copies each simulation out to compute its forces."""
    with monkeypatch.context() as patch:
        patch.setattr(native_mujoco, "can_compute_in_step", lambda: False)
        environment = MujocoEnvironment(name, num_threads=1)
    assert environment.model.nplugin == 0
    return environment


def assert_same(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_mujoco_has_the_plugin():
    assert can_compute_in_step()
    assert MujocoEnvironment("ant", num_threads=1).model.nplugin == 1
    assert MujocoEnvironment("hopper", num_threads=1).model.nplugin == 0


@with_contact_forces
def test_the_plugin_changes_nothing_else_of_the_model(name):
    """A state's row keeps its size, so that older checkpoints load."""
    ours, plain = MujocoEnvironment(name).model, load_model(TASKS[name])
    whole = mujoco.mjtState.mjSTATE_INTEGRATION
    assert mujoco.mj_stateSize(ours, whole) == mujoco.mj_stateSize(plain, whole)
    for field in dir(plain):
        value = getattr(plain, field)
        if field.startswith(("_", "names")) or "plugin" in field:
            continue
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(ours, field), value, field)


@with_contact_forces
def test_steps_are_those_of_one_simulation_after_another(name, monkeypatch):
    """All stepped, some stepped, some reset between steps, a copied state."""
    both = MujocoEnvironment(name, num_threads=2), one_by_one(name, monkeypatch)
    generator = np.random.default_rng(0)
    high, everyone = both[0].action_high, np.arange(5)
    keys = np.arange(10, dtype=np.uint32).reshape(5, 2)
    for environment in both:
        environment.allocate(5)
    assert_same(*(e.reset(everyone, keys) for e in both))
    largest = 0.0
    for k in range(40):
        ids = None if k % 3 else np.sort(generator.permutation(5)[:3])
        n = 5 if ids is None else 3
        actions = generator.uniform(-1, 1, (n, len(high))) * high
        stepped = [e.step(actions, ids) for e in both]
        assert_same(*stepped)
        largest = max(largest, np.abs(stepped[0][0][:, -78:]).max())
        if k % 10 == 9:
            some = np.sort(generator.permutation(5)[:2])
            assert_same(*(e.reset(some, keys[some] + k) for e in both))
            for environment in both:
                environment.load(environment.save())
    assert largest > 0.5
    assert_same(*(e.save() for e in both))


@pytest.mark.parametrize("name", ["ant", "humanoid"])
def test_observations_are_gymnasiums(name):
    """Rewards are to a few units in the last place: NumPy sums in another order."""
    ours = MujocoEnvironment(name, num_threads=2)
    theirs: Any = gymnasium.make(TASKS[name].gymnasium_id)
    ours.allocate(3)
    ours.reset(np.arange(3), np.arange(6, dtype=np.uint32).reshape(3, 2))
    theirs.reset(seed=0)
    theirs.unwrapped.set_state(*(ours._fields[x][1].copy() for x in ("qpos", "qvel")))
    generator, touched = np.random.default_rng(1), False
    for _ in range(30):
        actions = generator.uniform(-1, 1, (3, len(ours.action_high)))
        actions *= ours.action_high
        observations, rewards, _ = ours.step(actions, None)
        expected, reward, *_ = theirs.step(actions[1])
        np.testing.assert_array_equal(observations[1], expected)
        np.testing.assert_allclose(rewards[1], reward, rtol=1e-13)
        touched |= bool(expected[-78:].any())
    assert touched
    theirs.close()


@pytest.mark.parametrize("mask", [None, "contact-forces"])
@pytest.mark.parametrize("name", ["ant", "humanoid"])
def test_unrolls_are_those_of_one_simulation_after_another(name, mask, monkeypatch):
    """Of policies that see the contact forces, and of policies that do not."""
    ours = MujocoEnvironment(name, num_threads=2)
    config = make_config(name, "pes", observation_mask=mask)
    policy = make_policy(config, ours)
    rollout: Any = make_rollout(config, ours, policy)
    before = replace(rollout, environment=one_by_one(name, monkeypatch))
    noise = np.random.default_rng(0).normal(size=(4, policy.num_parameters))
    thetas = np.asarray(0.1 * noise, np.float32)
    start = rollout.reset(jax.random.key(0), 2)
    one, other = (r.unroll(start, thetas, 40) for r in (rollout, before))
    assert_same(*map(jax.tree.leaves, (one, other)))


def test_a_simulation_that_diverges_leaves_the_others_alone(monkeypatch):
    both = MujocoEnvironment("ant", num_threads=1), one_by_one("ant", monkeypatch)
    actions = np.zeros((3, 8))
    for environment in both:
        environment.allocate(3)
        environment.reset(np.arange(3), np.arange(6, dtype=np.uint32).reshape(3, 2))
        environment._fields["qvel"][1] = np.inf
    stepped = [e.step(actions, None) for e in both]
    assert_same(*stepped)
    np.testing.assert_array_equal(np.isnan(stepped[0][1]), [False, True, False])
