"""Shares of an update: estimates without the lost ones; what is sent and drawn."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worker_pools import LocalWorkerPool

from pes_rl.agents import ES, GPES, NRES, PES
from pes_rl.agents.core import perturbations
from pes_rl.agents.core.perturbations import draw_in_blocks
from pes_rl.envs import HostRollout
from pes_rl.envs.ray.rollout import RayRollout
from pes_rl.envs.ray.worker_rollout import WorkerRollout
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig


class Drifting:
    """The loss of an episode's t-th step is the sum of its t actions, one a step."""

    on_device, can_copy = False, False
    observation_size, horizon = 1, 6
    action_low, action_high = np.array([-9.0]), np.array([9.0])

    def allocate(self, num_simulations: int) -> None:
        self.drift = np.zeros(num_simulations)

    def load(self, state: Any) -> None:
        del state

    def save(self) -> Any:
        return np.zeros(len(self.drift))

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        del keys
        self.drift[ids] = 0
        return np.zeros((len(ids), 1))

    def step(self, actions: np.ndarray, ids: np.ndarray | None) -> Any:
        rows = slice(None) if ids is None else ids
        self.drift[rows] += actions[:, 0]
        drift = self.drift[rows]
        return np.zeros((len(drift), 1)), -drift, np.zeros(len(drift), bool)


def drifting_worker() -> WorkerRollout:
    return WorkerRollout(HostRollout(Drifting(), lambda theta, _: theta, 6))


@pytest.mark.parametrize(
    "estimator",
    [
        PES(400, 2, 0.5),
        PES(400, 2, 0.5, restart_at_once=True),
        GPES(400, 2, 4, 0.5),
        NRES(400, 2, 0.5),
    ],
    ids=["pes", "pes, restarting", "gpes", "nres"],
)
def test_an_update_without_lost_particles_is_unbiased(estimator):
    """In the third update the lost quarter is in its first unroll, others in the third.

    The t-th loss has the gradient t; so unrolls of two steps have 3, 7 and 11. Each
    mean of 30 draws is within 5 standard errors (missed with probability 3e-5 each),
    which are below 4%: an estimate that counts lost particles as 0 is off by a quarter.
    """
    rollout: Any = RayRollout(LocalWorkerPool(drifting_worker, 4), 6, False)
    learner = Learner(rollout, estimator, OptimizerConfig("sgd", 1.0), 10_000)
    draws = []
    for seed in range(30):
        state = learner.init(jnp.zeros(1), jax.random.key(seed))
        thetas = [0.0]
        for update in range(3):
            rollout.pool.dying = {seed % 4} if update == 1 else set()
            state, _ = learner.run(state, 1)
            thetas.append(float(state.theta[0]))
        draws.append(-np.diff(thetas))
    draws = np.array(draws)
    expected = np.array([3.0, 7.0, 0.75 * 11 + 0.25 * 3])
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    assert (error < 0.04 * expected).all()
    assert (np.abs(draws.mean(0) - expected) < 5 * error).all()


def test_an_update_sends_no_perturbations():
    def sent(num_parameters: int, num_pairs: int) -> int:
        rollout: Any = RayRollout(LocalWorkerPool(drifting_worker, 2), 6, False)
        estimator, theta = PES(num_pairs, 2, 0.5), jnp.zeros(num_parameters)
        state = estimator.init(rollout, theta, jax.random.key(0))
        before = rollout.pool.sent_bytes
        estimator.estimate(rollout, theta, state, jax.random.key(1))
        return rollout.pool.sent_bytes - before

    # Theta alone, which the pool of this test sends to each of two workers and shares.
    for num_pairs in (4, 40):
        more = sent(2001, num_pairs) - sent(1001, num_pairs)
        assert 4000 * 2 <= more <= 4000 * 3 + 100


@pytest.mark.parametrize("orthogonal", [False, True])
def test_a_worker_draws_only_the_pairs_or_orthogonal_blocks_of_its_share(
    orthogonal, monkeypatch
):
    drawn = []

    def recorded(draw: Any, *where: Any) -> Any:
        *_, count, blocks = where
        assert blocks
        drawn.append(count)
        return draw_in_blocks(draw, *where)

    monkeypatch.setattr(perturbations, "draw_in_blocks", recorded)
    rollout: Any = RayRollout(LocalWorkerPool(drifting_worker, 4), 6, False)
    # Of sizes that no other test has traced.
    estimator, theta = ES(12, 0.25, orthogonal), jnp.zeros(3)
    state = estimator.init(rollout, theta, jax.random.key(0))
    estimator.estimate(rollout, theta, state, jax.random.key(1))
    # The driver's twelve and, traced once, the three of a worker. Blocks are of three
    # pairs, as many as parameters, and three pairs may lie in two.
    assert drawn == [12, 6 if orthogonal else 3]
