"""The table of every estimator, on both drivers, through the same tests."""

import dataclasses
import logging
from functools import cache
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimator_table import (
    ESTIMATORS,
    HORIZON,
    NUM_PAIRS,
    NUM_PARTICLES,
    ON_HOST,
    SIGMA,
    THETA,
    TRUNCATION_LENGTH,
    every_estimator,
    every_estimator_on_its_drivers,
    every_estimator_on_the_host,
    make_rollout,
    theta_of,
)
from jax import lax

from pes_rl.agents import AGENT_NAMES, PES, PerturbingEstimator, Report


def keys(num_updates: int) -> list[jax.Array]:
    return [jax.random.key(50 + update) for update in range(num_updates)]


@cache
def run(name: str, driver: str) -> list[tuple[jax.Array, Any, Report]]:
    """Three estimates, each with its own perturbations."""
    estimator, rollout = ESTIMATORS[name], make_rollout(driver, name)
    theta = theta_of(name)
    state = estimator.init(rollout, theta, jax.random.key(1))
    history = []
    for key in keys(3):
        history.append(estimator.estimate(rollout, theta, state, key))
        state = history[-1][1]
    return history


def test_every_agent_of_the_package_is_in_the_table():
    assert {name.split(",")[0] for name in ESTIMATORS} == set(AGENT_NAMES)
    perturbing = {n for n, e in ESTIMATORS.items() if hasattr(e, "sigma")}
    for name, estimator in ESTIMATORS.items():
        assert isinstance(estimator, PerturbingEstimator) == (name in perturbing)


@every_estimator_on_its_drivers
def test_estimates_have_the_stated_shapes_and_dtypes_and_are_finite(name, driver):
    for gradient, _, report in run(name, driver):
        assert gradient.shape == theta_of(name).shape
        assert gradient.dtype == jnp.float32
        assert jnp.abs(gradient).min() > 0
        assert report.particle_loss.shape == (NUM_PARTICLES,)
        for field in dataclasses.fields(report):
            value = getattr(report, field.name)
            if value is None:  # not normalised, not shaped, without a critic
                none = ["observations", "loss_std", "critic_explained"]
                assert field.name in none[: 2 if name == "pes, critic" else 3]
                continue
            if field.name == "arrived":
                assert value.all() and value.shape == (NUM_PARTICLES,)
                continue
            counts = ("env_steps", "episodes", "episode_steps", "diverged")
            assert value.dtype == (jnp.int32 if field.name in counts else jnp.float32)
            assert value.shape == () or field.name == "particle_loss"
            unknown = field.name == "signal_to_noise" and "orthogonal" in name
            assert np.isnan(value) if unknown else np.isfinite(value).all()
        assert report.gradient_norm == pytest.approx(jnp.linalg.norm(gradient))


@every_estimator_on_the_host
def test_both_drivers_give_the_same_estimates(name):
    on_device, on_host = run(name, "device"), run(name, "host")
    for (gradient, _, report), (other, _, other_report) in zip(
        on_device, on_host, strict=True
    ):
        np.testing.assert_array_equal(gradient, other)
        jax.tree.map(np.testing.assert_array_equal, report, other_report)


@every_estimator_on_its_drivers
def test_an_estimate_depends_on_its_arguments_alone(name, driver):
    """The state given is left alone, and no other hides in the rollout."""
    estimator, rollout = ESTIMATORS[name], make_rollout(driver, name)
    theta = theta_of(name)
    _, state, _ = run(name, driver)[0]
    again = [estimator.estimate(rollout, theta, state, keys(2)[1]) for _ in range(2)]
    for estimate in again:
        jax.tree.map(np.testing.assert_array_equal, estimate, run(name, driver)[1])


@every_estimator
def test_jitted_estimates_are_the_eager_ones_from_one_compilation(name, caplog):
    estimator, rollout = ESTIMATORS[name], make_rollout("device", name)
    theta = theta_of(name)

    @jax.jit
    def whole_estimate(theta, state, key):
        return estimator.estimate(rollout, theta, state, key)

    state = estimator.init(rollout, theta, jax.random.key(1))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for key, eager in zip(keys(3), run(name, "device"), strict=True):
            estimate = whole_estimate(theta, state, key)
            state = estimate[1]
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
                estimate,
                eager,
            )
    compiled = [r for r in caplog.messages if r.startswith("Compiling")]
    assert len([m for m in compiled if "whole_estimate" in m]) == 1


@every_estimator_on_the_host
def test_repeated_estimates_on_the_host_compile_nothing_new(name, caplog):
    run(name, "host")
    estimator, rollout = ESTIMATORS[name], make_rollout("host")
    state = estimator.init(rollout, THETA, jax.random.key(1))
    fresh_keys = keys(3)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for key in fresh_keys:
            _, state, _ = estimator.estimate(rollout, THETA, state, key)
    assert [m for m in caplog.messages if m.startswith("Compiling")] == []


@every_estimator
def test_the_state_keeps_its_structure_so_that_updates_scan(name):
    estimator, rollout = ESTIMATORS[name], make_rollout("device", name)
    theta = theta_of(name)

    def updates(key):
        def update(state, key):
            gradient, state, report = estimator.estimate(rollout, theta, state, key)
            return state, (gradient, report)

        state = estimator.init(rollout, theta, key)
        return lax.scan(update, state, jax.random.split(key, 4))

    _, (gradients, _) = jax.eval_shape(updates, jax.random.key(0))
    assert gradients.shape == (4, *theta.shape)


@every_estimator_on_the_host
def test_the_state_on_the_host_keeps_its_structure_shapes_and_dtypes(name):
    estimator, rollout = ESTIMATORS[name], make_rollout("host")
    start = estimator.init(rollout, THETA, jax.random.key(1))

    def outline(state):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)

    for _, state, _ in run(name, "host"):
        assert outline(state) == outline(start)


@every_estimator_on_the_host
def test_env_steps_are_what_the_environment_counted(name):
    """The mean unroll of truncated ES too, and no steps of finished episodes."""
    estimator, rollout = ESTIMATORS[name], make_rollout("host")
    state = estimator.init(rollout, THETA, jax.random.key(1))
    assert rollout.environment.steps_taken == 0
    total = 0
    for key, (_, _, device_report) in zip(keys(3), run(name, "device"), strict=True):
        rollout.environment.steps_taken = 0
        _, state, report = estimator.estimate(rollout, THETA, state, key)
        assert report.env_steps == rollout.environment.steps_taken
        assert report.env_steps == device_report.env_steps
        assert report.env_steps <= estimator.max_steps(HORIZON)
        total += int(report.env_steps)
    if name == "pes, at once":
        assert total == 3 * NUM_PARTICLES * TRUNCATION_LENGTH
    else:  # Particles wait where their episodes end.
        assert total < 3 * estimator.max_steps(HORIZON)


def test_pes_that_restarts_at_once_is_not_es_where_episodes_end_early():
    """It begins the next episode in the unroll; ES, and PES that waits, do not."""
    pes = PES(NUM_PAIRS, HORIZON, SIGMA, restart_at_once=True)
    rollout = make_rollout("host")
    state = pes.init(rollout, THETA, jax.random.key(1))
    gradient, _, report = pes.estimate(rollout, THETA, state, keys(1)[0])
    es_gradient, _, es_report = run("es", "host")[0]
    assert (gradient != es_gradient).all()
    assert report.env_steps > es_report.env_steps


def test_truncated_es_keeps_the_state_that_the_mean_reached():
    """The state equals that of a single particle under the mean theta."""
    rollout = make_rollout("host")
    mean = rollout.reset(jax.random.key(1), 1, members=1)
    for _, state, _ in run("truncated-es", "host"):
        mean, _ = rollout.unroll(
            mean, THETA[None], TRUNCATION_LENGTH, single_episode=True
        )
        jax.tree.map(np.testing.assert_array_equal, state, mean)


@pytest.mark.parametrize("name", [n for n in ON_HOST if n != "random-search"])
def test_antithetic_parts_of_equal_losses_cancel(name):
    """If the loss does not depend on theta, each pair contributes 0."""

    class Constant(counting.HostCounting):
        def step(self, actions, ids):
            observation, reward, terminated = super().step(0 * actions, ids)
            return observation, 0 * reward + 1.5, terminated

    rollout = dataclasses.replace(make_rollout("host"), environment=Constant(HORIZON))
    estimator = ESTIMATORS[name]
    state = estimator.init(rollout, THETA, jax.random.key(1))
    for key in keys(2):
        gradient, state, report = estimator.estimate(rollout, THETA, state, key)
        assert report.particle_loss.min() < 0
        np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
