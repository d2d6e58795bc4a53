"""`FinalLoss`: losses of steps that sum to the last loss of the episode."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent import SIGMA, float32
from sampling import assert_mean

from pes_rl.agents import PES, antithetic_perturbations
from pes_rl.assembly.factories import make_evaluation_rollout
from pes_rl.config.train_config import make_config
from pes_rl.envs import DeviceRollout, FinalLoss
from pes_rl.envs.registry import make

NUM_UNROLLS, NUM_PAIRS, NUM_DRAWS = 4, 10, 2000
G = np.array([1.0, -2.0, 0.5])
THETA = np.array([0.3, 0.1, -0.2])


def test_an_episode_sums_to_its_last_loss():
    """Also where it ends by itself, and in the episode after it."""
    inside = counting.device_rollout(8)
    rollout = DeviceRollout(FinalLoss(inside.problem), 8)
    key, thetas = jax.random.key(0), jnp.linspace(-1.0, 1.0, 12).reshape(6, 2)

    @partial(jax.jit, static_argnums=0)
    def unroll(rollout: DeviceRollout) -> Any:
        return rollout.unroll(rollout.reset(key, 3), thetas, 20)[1]

    plain, telescoped = unroll(inside), unroll(rollout)
    np.testing.assert_array_equal(telescoped.ended, plain.ended)
    checked = 0
    for i in range(6):
        ends = np.flatnonzero(plain.ended[:, i])
        for first, last in zip([0, *(ends[:-1] + 1)], ends, strict=True):
            total = telescoped.loss[first : last + 1, i].sum()
            assert total == plain.loss[last, i]
            checked += 1
    assert checked > 12


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("toy-regression", {}),
        ("lr-schedule", {"hidden_sizes": [3], "batch_size": 4}),
        ("mlp-hyperparameters", {"hidden_units": 2, "batch_size": 4}),
        ("learned-optimizer", {"hidden_sizes": [2], "batch_size": 4}),
    ],
)
def test_problems_are_judged_by_their_last_loss(name, options):
    """As evaluated, and on the same minibatch at every step."""
    options = {**options, "horizon": 6, "final_loss": True}
    problem: Any = make(f"unrolled:{name}", env_kwargs=options)
    theta, key = problem.init_theta(jax.random.key(3)), jax.random.key(4)

    def step(state: Any, _: None) -> Any:
        state, loss, _ = problem.step(theta, state)
        return state, loss

    rollout = make_evaluation_rollout(make_config("unrolled:lstm", "pes"), problem)
    particles = rollout.reset(key, 1, members=1)
    (state, _) = jax.tree.map(lambda leaf: leaf[0], particles.state)
    _, losses = jax.jit(lambda s: jax.lax.scan(step, s, length=6))(state)
    _, segment = rollout.unroll(particles, theta[None], 6)
    np.testing.assert_allclose(segment.loss.sum(), losses[-1], rtol=1e-5)
    assert problem.meta_loss == "sum"
    if name != "toy-regression":
        tests = [problem.minibatches(state[0], jnp.int32(t))[1][0] for t in range(6)]
        assert all((batch == tests[0]).all() for batch in tests)
        learn = [problem.minibatches(state[0], jnp.int32(t))[0][0] for t in range(2)]
        assert (learn[0] != learn[1]).any() and (learn[0] != tests[0]).any()


@dataclass(frozen=True)
class Leaky:
    """s_t = memory s_{t-1} + theta, loss G s_t."""

    memory: Any

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.zeros(3)

    def step(self, theta: jax.Array, state: jax.Array) -> Any:
        state = self.memory * state + theta
        return state, float32(G) @ state, jnp.array(False)


@jax.jit
def draw_both(keys: jax.Array, memory: jax.Array) -> Any:
    """Sums over an episode of PES on `FinalLoss`, and by the released weights."""
    rollout = DeviceRollout(FinalLoss(Leaky(memory)), NUM_UNROLLS)
    estimator, theta = PES(NUM_PAIRS, 1, SIGMA), float32(THETA)

    def update(state: Any, key: jax.Array) -> Any:
        gradient, state, report = estimator.estimate(rollout, theta, state, key)
        e = antithetic_perturbations(key, NUM_PAIRS, 3, SIGMA)
        return state, (gradient, report.particle_loss, e)

    def draw(keys: jax.Array) -> Any:
        state = estimator.init(rollout, theta, keys[0])
        _, history = jax.lax.scan(update, state, keys[1:])
        total, loss, accumulator = (each.sum(0) for each in history)
        # sum_t (L_t xi_t - L_{t-1} xi_{t-1}) telescopes too.
        return total, loss @ accumulator / (2 * NUM_PAIRS * SIGMA**2)

    return jax.lax.map(draw, keys)


@pytest.mark.parametrize(
    ("memory", "here", "released"),
    [
        # D sum_mt |h_mt|^2 + sum_mt h_mt . h_tm, in units of |G|^2 for one pair.
        pytest.param(1.0, 34, 64, id="losses go together"),
        pytest.param(0.0, 20, 13, id="each unroll forgets the one before"),
    ],
)
def test_both_weightings_estimate_the_final_loss_and_differ_in_variance(
    memory, here, released
):
    keys = jax.random.split(jax.random.key(5), (NUM_DRAWS, NUM_UNROLLS + 1))
    gradient = (NUM_UNROLLS if memory else 1) * G
    for draws, variance in zip(
        draw_both(keys, jnp.float32(memory)), (here, released), strict=True
    ):
        draws = np.asarray(draws, np.float64)
        assert_mean(draws, gradient, precision=0.05)
        squares = np.sum((draws - gradient) ** 2, axis=1)
        assert_mean(squares[:, None], np.array([variance * (G @ G) / NUM_PAIRS]))
