"""A masked policy is the whole one with weights of 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import MaskedPolicy, Policy

pytestmark = pytest.mark.user_compilation

LOW, HIGH = (-30.0, -2.0), (30.0, 2.0)


def make(visible, hidden_sizes=(), bias=True, size=9) -> MaskedPolicy:
    policy = Policy(len(visible), LOW, HIGH, hidden_sizes, bias)
    return MaskedPolicy(policy, tuple(visible), size)


@pytest.mark.parametrize("visible", [(0, 1, 2), (2, 3, 4, 5), (8, 1, 5), (4,)])
@pytest.mark.parametrize("hidden_sizes", [(), (3,), (4, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_whole_policy_acts_the_same_bit_for_bit(visible, hidden_sizes, bias):
    """Small whole numbers: no sum rounds in either order."""
    masked = make(visible, hidden_sizes, bias)
    generator = np.random.default_rng(1)
    theta = generator.integers(1, 4, masked.num_parameters).astype(np.float32)
    observations = generator.integers(-4, 5, (20, 9)).astype(np.float32)
    whole, whole_theta = masked.unmask(theta)
    assert whole.num_parameters == len(whole_theta) and whole.observation_size == 9
    zeros = len(whole_theta) - len(theta)
    assert zeros == (9 - len(visible)) * (*hidden_sizes, 2)[0]
    for array in (np.asarray, jnp.asarray):
        rows = [array(np.tile(each, (20, 1))) for each in (theta, whole_theta)]
        actions = masked.act(rows[0], array(observations))
        np.testing.assert_array_equal(actions, whole.act(rows[1], array(observations)))
    assert len(np.unique(np.asarray(actions), axis=0)) > 1


def test_hidden_entries_change_nothing():
    masked, theta = make((0, 5)), np.arange(6.0)
    observation = np.arange(9.0)
    other = np.where(np.isin(np.arange(9), (0, 5)), observation, 100.0)
    one, two = (masked.act(theta, each) for each in (observation, other))
    np.testing.assert_array_equal(one, two)


def test_the_first_theta_is_that_of_the_policy_inside():
    masked, key = make((1, 2, 3), (4,)), jax.random.key(3)
    np.testing.assert_array_equal(masked.init(key), masked.policy.init(key))
    assert masked.num_parameters == masked.policy.num_parameters == 4 * 4 + 2 * 5
