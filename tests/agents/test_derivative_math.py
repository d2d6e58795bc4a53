"""The differentiating estimators against closed forms; z-scores as in `sampling.py`.

They use the loss of the mean theta, so only first states are random in their draws.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent import SIGMA, SYSTEMS, THETA, expected, float32
from sampling import MAX_SIGMAS, assert_mean, draw_estimates, standard_error

from pes_rl.agents import BPTT, PES, RTRL, TBPTT, UORO, PESAnalytic
from pes_rl.envs import DeviceRollout

NUM_PARTICLES = 50
NO_SIGMA = (0.0,) * 9


def assert_unrolls(draws: np.ndarray, mean: np.ndarray) -> None:
    assert_mean(draws.sum(1), mean.sum(0))
    assert_mean(draws.reshape(len(draws), -1), mean.ravel(), precision=0.1)


@pytest.mark.parametrize("name", ["quadratic", "cubic"])
@pytest.mark.parametrize("kind", [RTRL, UORO])
@pytest.mark.parametrize(
    ("truncation_length", "horizon", "num_unrolls"),
    [
        pytest.param(1, 6, 6, id="one step an unroll"),
        pytest.param(3, 7, 7, id="episodes end inside unrolls"),
    ],
)
def test_rtrl_and_uoro_are_unbiased(
    kind, name, truncation_length, horizon, num_unrolls
):
    mean = expected(
        SYSTEMS[name],
        truncation_length,
        num_unrolls,
        horizon,
        at_once=True,
        sigmas=NO_SIGMA,
    )
    estimator = kind(NUM_PARTICLES, truncation_length)
    assert_unrolls(draw_estimates(estimator, SYSTEMS[name], horizon, num_unrolls), mean)


@pytest.mark.parametrize("name", ["quadratic", "cubic"])
def test_bptt_is_unbiased(name):
    (mean,) = expected(SYSTEMS[name], 6, 1, 6, sigmas=NO_SIGMA)
    draws = draw_estimates(BPTT(NUM_PARTICLES), SYSTEMS[name], 6, num_unrolls=1)
    assert_mean(draws[:, 0], mean)


@pytest.mark.parametrize("name", ["quadratic", "cubic"])
@pytest.mark.parametrize(
    ("truncation_length", "horizon", "num_unrolls"), [(2, 6, 3), (3, 7, 7)]
)
def test_tbptt_misses_exactly_what_reaches_beyond_the_unroll(
    name, truncation_length, horizon, num_unrolls
):
    arguments = (SYSTEMS[name], truncation_length, num_unrolls, horizon)
    seen = expected(*arguments, truncated=True, at_once=True, sigmas=NO_SIGMA)
    whole = expected(*arguments, at_once=True, sigmas=NO_SIGMA)
    estimator = TBPTT(NUM_PARTICLES, truncation_length)
    draws = draw_estimates(estimator, SYSTEMS[name], horizon, num_unrolls)
    assert_unrolls(draws, seen)
    total = draws.sum(1)
    z = (total.mean(0) - whole.sum(0)) / standard_error(total)
    assert np.abs(z).max() > 10 * MAX_SIGMAS


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("truncation_length", "horizon", "num_unrolls"), [(2, 6, 3), (3, 7, 6)]
)
def test_pes_analytic_has_the_mean_of_its_two_parts(
    name, truncation_length, horizon, num_unrolls
):
    """PES's where the loss is at most quadratic; the cubic one shows the bias."""
    arguments = (SYSTEMS[name], truncation_length, num_unrolls, horizon)
    mean, pes = expected(*arguments, analytic=True), expected(*arguments)
    assert np.allclose(mean, pes, rtol=1e-9) == (name != "cubic")
    estimator = PESAnalytic(NUM_PARTICLES, truncation_length, SIGMA)
    draws = draw_estimates(estimator, SYSTEMS[name], horizon, num_unrolls, num_blocks=2)
    # With an accumulator of 0, an unroll has no noise but that of first states, which
    # do not enter the gradient of a linear loss.
    is_first = np.arange(num_unrolls) % -(-horizon // truncation_length) == 0
    first = draws[:, 0]
    if name == "linear":
        exact = np.broadcast_to(mean[0], first.shape)
        np.testing.assert_allclose(first, exact, rtol=1e-5)
        draws, mean = draws[:, ~is_first], mean[~is_first]
    assert_unrolls(draws, mean)
    if name == "cubic":
        z = (first.mean(0) - pes[0]) / standard_error(first)
        assert np.abs(z).max() > 2 * MAX_SIGMAS


@dataclass(frozen=True)
class Forgetful:
    """Loss W theta at each step, whatever was before."""

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.int32(0)

    def step(self, theta: jax.Array, state: jax.Array) -> Any:
        return state + 1, float32([1.0, -2.0, 0.5]) @ theta, jnp.array(False)


def test_pes_analytic_has_no_noise_where_unrolls_forget_and_losses_are_linear():
    rollout, theta = DeviceRollout(Forgetful(), horizon=6), float32(THETA)
    estimator = PESAnalytic(3, 2, SIGMA)

    @jax.jit
    def gradients(keys: jax.Array) -> jax.Array:
        def update(state: Any, key: jax.Array) -> Any:
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
            return state, gradient

        state = estimator.init(rollout, theta, keys[0])
        return jax.lax.scan(update, state, keys[1:])[1]

    for gradient in gradients(jax.random.split(jax.random.key(0), 5)):
        np.testing.assert_allclose(gradient, [2.0, -4.0, 1.0], rtol=1e-5)


@dataclass(frozen=True)
class Hazard:
    """Ends after a first step with probability 1 / (1 + exp(-theta)); else loss 1."""

    def init(self, key: jax.Array) -> Any:
        return jnp.int32(0), jax.random.uniform(key)

    def step(self, theta: jax.Array, state: Any) -> Any:
        t, chance = state
        loss = jnp.where(t == 0, 0.0, 1.0) + 0 * theta[0]
        return (t + 1, chance), loss, (t == 0) & (chance < jax.nn.sigmoid(theta[0]))


@pytest.mark.parametrize("sigma", [0.5, 0.05])
def test_the_bias_of_pes_analytic_does_not_vanish_with_sigma_where_ends_depend(sigma):
    """Its p leaves out all of the gradient -s (1 - s), s the sigmoid of theta."""
    rollout, theta = DeviceRollout(Hazard(), horizon=2), jnp.array([0.3])
    estimators: list[Any] = [PESAnalytic(500, 2, sigma), PES(500, 2, sigma)]

    def draw(key: jax.Array) -> list[jax.Array]:
        keys = jax.random.split(key)
        states = [e.init(rollout, theta, keys[0]) for e in estimators]
        return [
            e.estimate(rollout, theta, state, keys[1])[0]
            for e, state in zip(estimators, states, strict=True)
        ]

    keys = jax.random.split(jax.random.key(3), 300)
    analytic, pes = jax.jit(lambda keys: jax.lax.map(draw, keys))(keys)
    assert not analytic.any()
    s = 1 / (1 + np.exp(-0.3 - sigma * np.array([-np.sqrt(3), 0, np.sqrt(3)])))
    mean = -(s * (1 - s)) @ np.array([1 / 6, 2 / 3, 1 / 6])  # Gauss-Hermite
    assert_mean(np.asarray(pes, np.float64), np.array([mean]), precision=0.05)


@pytest.mark.slow
def test_the_mean_particles_of_pes_analytic_play_episodes_of_their_own():
    """Whatever the particles do, whose episodes end at other steps."""
    rollout, theta = DeviceRollout(Hazard(), horizon=2), jnp.array([0.3])
    estimator, start = PESAnalytic(8, 1, 2.0), jax.random.key(0)
    state = estimator.init(rollout, theta, start)
    mean = rollout.reset(start, 8, members=1)
    for update in range(4):
        _, state, _ = estimator.estimate(rollout, theta, state, jax.random.key(update))
        mean, _ = rollout.unroll(mean, theta[None], 1, single_episode=True)
        jax.tree.map(np.testing.assert_array_equal, state.mean, mean)
    own = np.asarray(state.pes.particles.clock.episode).reshape(8, 2)
    assert (own != np.asarray(mean.clock.episode)[:, None]).any(1).sum() > 2


@dataclass(frozen=True)
class Diverging:
    """Loss sqrt(theta - state): NaN from a first state of 1, smooth from one of 0."""

    def init(self, key: jax.Array) -> jax.Array:
        return (jax.random.key_data(key)[0] % 2).astype(jnp.float32)

    def step(self, theta: jax.Array, state: jax.Array) -> Any:
        after = state - 0.1 * theta[0]
        return after, jnp.sqrt(theta[0] - after), jnp.array(False)


@pytest.mark.parametrize(
    "estimator",
    [TBPTT(16, 2), BPTT(16), RTRL(16, 2), UORO(16, 2), PESAnalytic(16, 2, 0.01)],
)
def test_diverged_simulations_are_left_out_of_the_gradient(estimator):
    rollout = DeviceRollout(Diverging(), horizon=4, diverged_loss=9.0)
    theta = jnp.array([0.5])

    def update(state: Any, key: jax.Array) -> Any:
        gradient, state, report = estimator.estimate(rollout, theta, state, key)
        return state, (gradient, report)

    @jax.jit
    def run(key: jax.Array) -> Any:
        state = estimator.init(rollout, theta, key)
        return jax.lax.scan(update, state, jax.random.split(key, 6))

    _, (gradients, reports) = run(jax.random.key(2))
    assert reports.diverged.min() > 0
    assert np.isfinite(gradients).all()
    assert np.abs(gradients).min() > 0
