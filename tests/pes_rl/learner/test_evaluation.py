"""Evaluations of large policies: theta is held once, not once an episode."""

from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import Policy
from pes_rl.analysis.cost import planned_bytes
from pes_rl.envs import DeviceRollout, HostRollout, PolicyProblem, make
from pes_rl.learner import evaluation
from pes_rl.learner.evaluation import make_evaluator

pytestmark = pytest.mark.user_compilation

EPISODES = 70
KEY = jax.random.key(2)


def large_policy(environment: Any) -> tuple[Policy, jax.Array]:
    """A network of some 18,000 parameters, and a theta."""
    low, high = (
        tuple(map(float, bound))
        for bound in (environment.action_low, environment.action_high)
    )
    policy = Policy(environment.observation_size, low, high, hidden_sizes=(128, 128))
    theta = 0.1 * jax.random.normal(jax.random.key(1), (policy.num_parameters,))
    assert EPISODES * theta.size > evaluation.MAX_ROW_FLOATS
    return policy, theta


def test_on_the_host_the_policies_see_one_row_and_return_the_same_bits(monkeypatch):
    environment: Any = make("hopper", num_threads=1)
    policy, theta = large_policy(environment)
    seen = []

    def act(thetas: np.ndarray, observations: np.ndarray) -> np.ndarray:
        seen.append((thetas.strides[0], len(thetas)))
        return policy.act(thetas, observations)

    rollout = HostRollout(environment, act, horizon=40)
    one_row = make_evaluator(rollout, EPISODES)(theta, None, KEY)
    assert {stride for stride, _ in seen} == {0}
    assert min(count for _, count in seen) < EPISODES  # episodes ended early
    monkeypatch.setattr(
        evaluation, "_theta_rows", lambda theta, count, _: jnp.tile(theta, (count, 1))
    )
    seen.clear()
    row_each = make_evaluator(rollout, EPISODES)(theta, None, KEY)
    assert 0 not in {stride for stride, _ in seen}
    jax.tree.map(np.testing.assert_array_equal, one_row, row_each)


def test_on_a_device_an_evaluation_takes_no_memory_for_a_row_each(monkeypatch):
    environment = counting.DeviceCounting()
    policy, theta = large_policy(environment)
    rollout = DeviceRollout(PolicyProblem(environment, policy.act), horizon=5)

    def evaluate() -> tuple[int, Any]:
        compiled: Any = make_evaluator(rollout, EPISODES)
        compiled = compiled.lower(theta, None, KEY).compile()
        return planned_bytes(compiled), compiled(theta, None, KEY)

    memory, one_row = evaluate()
    monkeypatch.setattr(evaluation, "MAX_ROW_FLOATS", EPISODES * theta.size)
    memory_of_rows, row_each = evaluate()
    assert memory < 20 * theta.nbytes < EPISODES * theta.nbytes < memory_of_rows
    np.testing.assert_allclose(one_row.returns, row_each.returns, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("episodes", [1, 3])
def test_few_parameters_have_a_row_each_on_a_device(episodes):
    theta = jnp.arange(4.0)
    for on_device, count in ((True, episodes), (False, 1)):
        rows = evaluation._theta_rows(theta, episodes, on_device)
        np.testing.assert_array_equal(rows, np.tile(theta, (count, 1)))
