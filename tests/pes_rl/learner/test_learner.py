"""The training step, on losses simple enough to follow by hand."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import ES
from pes_rl.envs import DeviceRollout
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Constant:
    """A loss of 1 whatever theta; antithetic pairs make the estimate exactly 0."""

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.int32(0)

    def step(self, theta: jax.Array, state: jax.Array) -> Any:
        del theta
        return state + 1, jnp.float32(1), jnp.array(False)


def test_weight_decay_alone_shrinks_theta_by_the_learning_rate_times_itself():
    """Ten steps an update of a budget of 40: the rate falls from 0.5 by a quarter."""
    rollout = DeviceRollout(Constant(), horizon=5)
    step = OptimizerConfig("sgd", 0.5, "linear", weight_decay=0.2)
    learner = Learner(rollout, ES(1, 0.1), step, total_timesteps=40)
    theta = jnp.array([1.0, -2.0])
    state, _ = learner.run(learner.init(theta, jax.random.key(0)), 3)
    kept = (1 - 0.5 * 0.2) * (1 - 0.375 * 0.2) * (1 - 0.25 * 0.2)
    np.testing.assert_allclose(state.theta, kept * theta, rtol=1e-5)


def test_a_budget_above_what_int32_counts_is_a_budget():
    rollout = DeviceRollout(Constant(), horizon=5)
    learner = Learner(
        rollout, ES(1, 0.1), OptimizerConfig("sgd", 0.5), total_timesteps=10**11
    )
    state, _ = learner.run(learner.init(jnp.zeros(2), jax.random.key(0)), 1)
    np.testing.assert_allclose(learner.progress(state), 1e-10, rtol=1e-5)


@pytest.mark.parametrize("before", [10**9, 2**32 - 5])
def test_no_step_of_the_budget_is_lost_however_many_came_before(before):
    """The float32 nearest to 1e9 + 10 is 1e9."""
    rollout = DeviceRollout(Constant(), horizon=5)
    learner = Learner(
        rollout, ES(1, 0.1), OptimizerConfig("sgd", 0.5), total_timesteps=10**10
    )
    state = learner.init(jnp.zeros(2), jax.random.key(0))
    state = replace(state, steps=jnp.array([before, 0], jnp.uint32))
    state, _ = learner.run(state, 3)
    low, high = np.asarray(state.steps, np.int64)
    assert low + (high << 32) == before + 30
    share = (before + 30) / 1e10
    np.testing.assert_allclose(learner.progress(state), share, rtol=1e-6)
