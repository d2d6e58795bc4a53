"""Saved policies with a memory, and saved policies of a user's network."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from pes_rl.agents import GRUPolicy
from pes_rl.agents.networks.policy import make_network_policy
from pes_rl.run_folder.policy_files import (
    load_policy,
    save_policy,
)
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
    TrainedRecurrentPolicy,
    make_trained,
)

ROOT = Path(__file__).parents[3]
MEAN, STD = np.array([1, 0, -1], np.float32), np.array([2, 1, 0.5], np.float32)
OBSERVATIONS = np.random.default_rng(1).normal(size=(5, 2, 3))


@pytest.fixture
def gru(tmp_path):
    policy = GRUPolicy(3, (-1.0,), (1.0,), (4, 2))
    generator = np.random.default_rng(0)
    theta = generator.normal(size=policy.num_parameters).astype(np.float32)
    theta[-3:] *= 0.2  # the last layer: actions inside their bounds
    path = tmp_path / "gru.npz"
    save_policy(path, make_trained(policy, theta, MEAN, STD))
    return path


def by_hand(trained, observations):
    """Actions of one episode, by the policy's own act."""
    carry, actions = trained.policy.initial_carry(), []
    theta = trained.theta.astype(np.float64)
    for observation in observations:
        seen = (observation - MEAN) / STD
        carry, action = trained.policy.act(theta, carry, seen)
        carry = carry.astype(np.float32)
        actions.append(action)
    return np.array(actions)


def test_a_gru_is_read_and_remembers_until_it_is_reset(gru):
    trained = load_policy(gru)
    assert type(trained) is TrainedRecurrentPolicy
    assert trained.policy == GRUPolicy(3, (-1.0,), (1.0,), (4, 2))
    expected = by_hand(trained, OBSERVATIONS[:, 0])
    assert np.ptp(expected) > 0.01
    for _ in range(2):
        trained.reset()
        actions = [trained(observation) for observation in OBSERVATIONS[:, 0]]
        assert actions[0].dtype == np.float32
        np.testing.assert_allclose(actions, expected, rtol=1e-6, atol=1e-7)


def test_each_row_of_a_batch_has_its_own_memory(gru):
    trained = load_policy(gru)
    actions = np.stack([trained(batch) for batch in OBSERVATIONS], axis=1)
    for row in (0, 1):
        expected = by_hand(trained, OBSERVATIONS[:, row])
        np.testing.assert_allclose(actions[row], expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match=r"of shape \(3,\) they are .* call reset\(\)"):
        trained(OBSERVATIONS[0, 0])


def test_predict_carries_its_state_as_recurrent_policies_of_sb3_do(gru):
    trained, alone = load_policy(gru), load_policy(gru)
    state, actions = None, []
    for step, batch in enumerate(OBSERVATIONS):
        # The second simulation begins anew at step 2.
        begins = np.array([step == 0, step in (0, 2)])
        action, state = trained.predict(batch, state, begins)
        actions.append(action)
    first = [alone(observation) for observation in OBSERVATIONS[:, 0]]
    np.testing.assert_allclose(np.array(actions)[:, 0], first, rtol=1e-6)
    alone.reset()
    second = [alone(observation) for observation in OBSERVATIONS[2:, 1]]
    np.testing.assert_allclose(np.array(actions)[2:, 1], second, rtol=1e-6)
    with pytest.raises(ValueError, match="use deterministic=True"):
        trained.predict(batch, deterministic=False)


WITHOUT_JAX = """
import json, sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "equinox"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import pes_rl
policy = pes_rl.load_policy(sys.argv[1])
print(json.dumps([policy(o).tolist() for o in json.loads(sys.argv[2])]))
"""


def test_a_gru_acts_where_jax_is_not_installed(gru):
    observations = OBSERVATIONS[:, 0].tolist()
    command = [sys.executable, "-c", WITHOUT_JAX, str(gru), json.dumps(observations)]
    shown = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT
    )
    trained = load_policy(gru)
    assert json.loads(shown.stdout) == [trained(o).tolist() for o in observations]


def init(key):
    return jax.random.normal(key, (1, 3))


def apply(weights, observation):
    return weights @ observation


def initial_carry():
    return {"last": np.zeros(3, np.float32)}


def apply_to_last(weights, carry, observation):
    return {"last": observation}, weights @ (observation + carry["last"])


@pytest.fixture
def own(tmp_path):
    policy = make_network_policy("python:Mine", (init, apply), 3, (-9.0,), (9.0,))
    theta = np.array([1, 2, 3], np.float32)
    path = tmp_path / "own.npz"
    save_policy(path, make_trained(policy, theta, MEAN, STD))
    return path


def test_an_own_network_is_loaded_with_what_was_trained(own):
    trained = load_policy(own, policy=(init, apply))
    assert type(trained) is TrainedPolicy
    seen = (OBSERVATIONS[0] - MEAN) / STD
    expected = np.clip(seen @ [[1], [2], [3]], -9, 9)
    np.testing.assert_allclose(trained(OBSERVATIONS[0]), expected, rtol=1e-5)
    np.testing.assert_allclose(trained(OBSERVATIONS[0, 0]), expected[0], rtol=1e-5)
    again = own.with_name("again.npz")
    save_policy(again, trained)
    assert load_policy(again, policy=(init, apply)).policy == trained.policy


def test_an_own_recurrent_network_remembers(tmp_path):
    given = (init, apply_to_last, initial_carry)
    policy = make_network_policy("python:Mine", given, 3, (-99.0,), (99.0,))
    path = tmp_path / "own.npz"
    zeros = np.zeros(3, np.float32)
    theta = np.array([1, 2, 3], np.float32)
    save_policy(path, make_trained(policy, theta, zeros, zeros + 1))
    trained = load_policy(path, policy=given)
    actions = [trained(observation)[0] for observation in OBSERVATIONS[:, 0]]
    values = OBSERVATIONS[:, 0] @ [1, 2, 3]
    expected = values + np.concatenate([[0], values[:-1]])
    np.testing.assert_allclose(actions, expected, rtol=1e-5)
    trained.reset()
    np.testing.assert_allclose(trained(OBSERVATIONS[0, 0])[0], values[0], rtol=1e-5)


def test_without_the_network_the_error_says_how_to_load_it(own, gru):
    with pytest.raises(ValueError, match=r"python:Mine, .* hold no code; load"):
        load_policy(own)
    with pytest.raises(ValueError, match=r"a built-in policy \(gru\).* drop policy"):
        load_policy(gru, policy=(init, apply))

    def wider(key):
        return jax.random.normal(key, (2, 3))

    def of_wider(weights, observation):
        return weights[:1] @ observation

    with pytest.raises(ValueError, match=r"3 parameters of python:Mine, .* has 6"):
        load_policy(own, policy=(wider, of_wider))
