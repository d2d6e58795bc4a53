"""A sigma for each parameter: PGPE's update, closed forms, and what resumes."""

from dataclasses import dataclass, replace
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrent
from jax import lax
from sampling import assert_mean

from pes_rl.agents import (
    ES,
    GPES,
    NRES,
    PES,
    AdaptiveSigma,
    TruncatedES,
    antithetic_perturbations,
)
from pes_rl.agents.adaptive_sigma import adapted_sigma, log_sigma_slope
from pes_rl.config.train_config import make_config
from pes_rl.envs import DeviceRollout
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig
from pes_rl.run_folder.policy_files import load_policy
from pes_rl.training import command as train

THETA = jnp.array([0.25, -0.5])


def updates(estimator: Any, rollout: Any, count: int) -> list[Any]:
    state, history = estimator.init(rollout, THETA, jax.random.key(8)), []
    for update in range(count):
        key = jax.random.key(100 + update)
        history.append(estimator.estimate(rollout, THETA, state, key))
        state = history[-1][1]
    return history


def pgpe(loss: np.ndarray, e: np.ndarray, sigma: np.ndarray, rate: float) -> np.ndarray:
    """Sigma after an update, as pgpelib computes it: loops over pairs, on returns."""
    rank = np.array([sum(np.sign(x - y) for y in -loss) for x in -loss])
    rank /= 2 * (len(loss) - 1)
    total = np.zeros_like(sigma)
    for k in range(len(loss) // 2):
        average = (rank[2 * k] + rank[2 * k + 1]) / 2
        total += average * (e[2 * k] ** 2 - sigma**2) / sigma
    moved = sigma + rate * total / (len(loss) // 2)
    return np.clip(moved, 0.8 * sigma, 1.2 * sigma)


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_sigma_of_whole_episodes_is_that_of_pgpe(driver):
    rollout, rate = counting.ROLLOUTS[driver](6, 2.5), 1.5
    sigma = np.full(2, 0.7)
    for update, (gradient, state, report) in enumerate(
        updates(AdaptiveSigma(ES(4, 0.7), rate), rollout, 5)
    ):
        key = jax.random.key(100 + update)
        e = np.asarray(antithetic_perturbations(key, 4, 2, 1.0)) * sigma
        loss = np.asarray(report.particle_loss, np.float64)
        # PGPE's direction: sum of (L+ - L-) / 2 e, by the mean square of sigma.
        direction = (loss[:, None] * e).mean(0) / np.mean(sigma**2)
        np.testing.assert_allclose(gradient, direction, rtol=1e-4, atol=1e-4)
        sigma = pgpe(loss, e, sigma, rate)
        np.testing.assert_allclose(state.sigma, sigma, rtol=1e-5)
    assert np.ptp(sigma) > 0.01


def test_a_change_is_20_percent_at_most():
    slope = jnp.array([-100.0, 100.0, 1.0])
    expected = 3 * np.array([1.2, 0.8, 0.9])
    sigma = adapted_sigma(jnp.full(3, 3.0), slope, 0.1)
    np.testing.assert_allclose(sigma, expected, rtol=1e-6)


@dataclass(frozen=True)
class Remembered:
    """The loss of the second step is the square of the first step's theta_0."""

    def init(self, key: jax.Array) -> Any:
        del key
        return jnp.int32(0), jnp.float32(0)

    def step(self, theta: jax.Array, state: Any) -> Any:
        t, first = state
        first = jnp.where(t == 0, theta[0], first)
        loss = jnp.where(t == 0, 0.0, first**2)
        return (t + 1, first), loss, jnp.array(False)


def slopes(kind: Any, num_draws: int) -> np.ndarray:
    """Slopes by log sigma in the second unroll, with theta at 0. # shape=(draws, D)"""
    rollout, theta = DeviceRollout(Remembered(), 2), jnp.zeros(2)
    estimator = AdaptiveSigma(kind(4, 1, 0.3), 1e-3)

    def one(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 3)
        state = estimator.init(rollout, theta, keys[0])
        _, state, _ = estimator.estimate(rollout, theta, state, keys[1])
        # Another sigma within the episode: the first perturbation keeps its own.
        before = jnp.array([0.9, 0.1])
        state = replace(state, sigma=before)
        _, state, _ = estimator.estimate(rollout, theta, state, keys[2])
        return (1 - state.sigma / before) / 1e-3

    keys = jax.random.split(jax.random.key(5), num_draws)
    return np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)


@pytest.mark.parametrize("kind", [PES, NRES])
def test_the_slope_of_a_square_that_an_earlier_unroll_decided(kind):
    """Of the mean rank by log sigma_0 it is (N - 2) / (N - 1) / pi, and by sigma_1 0.

    The rank of z^2 is its distribution function less 1/2, over the N - 2 particles
    that are not of the pair, and E[z^2 F(z^2)] is half of E max(z1^2, z2^2), 1 + 2/pi.
    """
    draws = slopes(kind, 20_000)
    assert_mean(draws[:, :1], np.array([6 / 7 / np.pi]))
    error = draws[:, 1].std() / np.sqrt(len(draws))
    assert abs(draws[:, 1].mean()) < 5 * error < 0.02


def test_linear_losses_say_nothing_of_sigma():
    """The members of a pair have opposite ranks."""
    e = np.asarray(antithetic_perturbations(jax.random.key(3), 5, 3, 1.0))
    loss = jnp.asarray(e @ np.array([1.0, -2.0, 0.5], np.float32))
    slope = log_sigma_slope(loss, np.ones(10, bool), jnp.asarray(e**2 - 1))
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_the_gradient_is_unbiased_while_each_sigma_changes_within_episodes():
    """On the linear system, whose gradient does not depend on sigma."""
    system, horizon = recurrent.SYSTEMS["linear"], 6
    sigmas = jnp.array([[[0.3, 0.1, 0.6]], [[0.2, 0.4, 0.3]], [[0.4, 0.1, 0.1]]])
    rollout = DeviceRollout(system, horizon)
    theta = recurrent.float32(recurrent.THETA)

    def one(key: jax.Array) -> jax.Array:
        def update(state: Any, now: Any) -> Any:
            key, sigma = now
            gradient, state, _ = PES(8, 2, sigma).estimate(rollout, theta, state, key)
            return state, gradient

        start_key, *keys = jax.random.split(key, 4)
        state = PES(8, 2, sigmas[0]).init(rollout, theta, start_key)
        return lax.scan(update, state, (jnp.stack(keys), sigmas))[1]

    draws = jax.jit(lambda keys: lax.map(one, keys, batch_size=500))(
        jax.random.split(jax.random.key(17), 10_000)
    )
    mean = recurrent.expected(system, 2, 3, horizon)
    assert_mean(np.asarray(draws, np.float64).reshape(-1, 9), mean.ravel(), 0.1)


@pytest.mark.parametrize("kind", [PES, NRES, TruncatedES])
def test_equal_sigmas_give_the_estimate_of_one_sigma(kind):
    rollout = counting.ROLLOUTS["host"](6, 2.5)
    adaptive, _, _ = updates(AdaptiveSigma(kind(4, 2, 0.7), 0.1), rollout, 1)[0]
    plain, _, _ = updates(kind(4, 2, 0.7), rollout, 1)[0]
    np.testing.assert_allclose(adaptive, plain, rtol=1e-5)


@pytest.mark.parametrize(
    "estimator",
    [
        PES(4, 2, 0.7, stagger=True, trace_decay=0.8),
        NRES(4, 2, 0.7, stagger=True, orthogonal=True),
    ],
)
def test_both_drivers_and_a_scan_adapt_alike(estimator):
    adaptive = AdaptiveSigma(estimator, 1.5)
    by_driver = [
        updates(adaptive, make(6, 2.5, diverges_at=3), 5)
        for make in counting.ROLLOUTS.values()
    ]
    for (gradient, state, _), (other, other_state, _) in zip(*by_driver, strict=True):
        np.testing.assert_array_equal(gradient, other)
        np.testing.assert_array_equal(state.sigma, other_state.sigma)
    assert np.ptp(np.asarray(state.sigma)) > 0.01
    device = DeviceRollout(counting.ROLLOUTS["device"](6).problem, 6)
    learner = Learner(device, adaptive, OptimizerConfig("sgd", 0.01), 1000)
    start = learner.init(THETA, jax.random.key(3))
    together, _ = learner.run(start, 3)
    apart = start
    for _ in range(3):
        apart, _ = learner.run(apart, 1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), together, apart
    )


def test_where_simulations_cannot_be_saved_the_sigmas_are():
    rollout = counting.host_rollout(6, can_copy=False)
    adaptive = AdaptiveSigma(NRES(4, 2, 0.7), 1.5)
    options = OptimizerConfig("sgd", 0.01, normalize_returns=True)
    learner = Learner(rollout, adaptive, options, 1000)
    state, _ = learner.run(learner.init(THETA, jax.random.key(3)), 4)
    resumed = learner.resume(state)
    np.testing.assert_array_equal(resumed.estimator.sigma, state.estimator.sigma)
    assert not np.allclose(resumed.estimator.sigma, 0.7)
    assert learner.sigma(resumed) == pytest.approx(
        float(np.sqrt(np.mean(np.asarray(resumed.estimator.sigma) ** 2)))
    )


@pytest.mark.parametrize("agent", ["pes", pytest.param("nres", marks=pytest.mark.slow)])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, agent):
    options = (
        f"--env swimmer --agent {agent} --num-pairs 2 --truncation-length 10 "
        "--horizon 40 --total-timesteps 480 --eval-episodes 2 --final-eval-episodes 3 "
        "--eval-interval 160 --log-interval 2 --checkpoint-interval 160 "
        "--sigma-learning-rate 0.5"
    )
    run = tmp_path / "run"
    assert train.main([*options.split(), "--logdir", str(run)]) == 0
    theta = load_policy(run, "last").theta
    checkpoint = min(int(path.name) for path in (run / "checkpoints").iterdir())
    assert train.main(["--resume", str(run / "checkpoints" / str(checkpoint))]) == 0
    np.testing.assert_array_equal(load_policy(run, "last").theta, theta)


def test_what_does_not_fit_is_refused():
    def refuses(message: str, make: Any, *values: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            make(*values, **options)

    refuses("adapts for PES, .* this is GPES", AdaptiveSigma, GPES(4, 2, 4, 0.1), 0.1)
    refuses("=0 must be above 0; use 0.1", AdaptiveSigma, ES(4, 0.1), 0)
    at_once = PES(4, 2, 0.1, restart_at_once=True)
    refuses("with restart_at_once an unroll", AdaptiveSigma, at_once, 0.1)
    chunked = AdaptiveSigma(NRES(4, 2, 0.1, pairs_per_chunk=2), 0.1)
    device = counting.ROLLOUTS["device"](6)
    key = jax.random.key(0)
    refuses("all 4 pairs at once, here in chunks", chunked.init, device, THETA, key)
    step, adaptive = OptimizerConfig("sgd", 0.1), AdaptiveSigma(ES(4, 0.1), 0.1)
    refuses("and has a schedule; drop one", Learner, device, adaptive, step, 10, 0.1)
    options: Any = {"sigma_learning_rate": 0.1}
    refuses("no meaning for gpes", make_config, "swimmer", "gpes", **options)
    options["final_sigma"] = 0.1
    refuses("final_sigma=0.1 is a schedule", make_config, "swimmer", "pes", **options)


def test_settings_fit_a_sigma_that_adapts():
    config = make_config("swimmer", "pes", sigma_learning_rate=0.1)
    assert config.final_sigma is None and not config.restart_at_once
