"""One table of every estimator, on both drivers, through the same tests."""

import dataclasses
import logging
from functools import cache
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrent
from jax import lax

from pes_rl.agents import (
    AGENT_NAMES,
    ARS,
    BPTT,
    ES,
    GPES,
    NRES,
    PES,
    RTRL,
    TBPTT,
    UORO,
    Estimator,
    PerturbingEstimator,
    PESAnalytic,
    RandomSearch,
    Report,
    TruncatedES,
    antithetic_perturbations,
    episode_noise,
    orthogonal_rows,
)
from pes_rl.agents.estimator import signal_to_noise
from pes_rl.envs import DeviceRollout, FinalLoss

# As in test_reference.py, so that the two share compilations.
NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, HORIZON = 4, 5, 0.7, 6
NUM_PARTICLES = 2 * NUM_PAIRS
THETA = jnp.array([0.25, -0.5])
RECURRENT_THETA = recurrent.float32(recurrent.THETA)

ESTIMATORS: dict[str, Estimator] = {
    "pes": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA),
    "pes, staggered": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger=True),
    "pes, at once": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, restart_at_once=True),
    "gpes": GPES(NUM_PAIRS, 2, 4, SIGMA),
    "gpes, staggered": GPES(NUM_PAIRS, 2, 4, SIGMA, stagger=True),
    "nres": NRES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA),
    "nres, staggered": NRES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger=True),
    "nres, orthogonal": NRES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, orthogonal=True),
    "es": ES(NUM_PAIRS, SIGMA),
    "truncated-es": TruncatedES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA),
    "ars": ARS(NUM_PAIRS, 3, SIGMA),
    "random-search": RandomSearch(NUM_PARTICLES, 2.0),
}
DIFFERENTIATING: dict[str, Estimator] = {
    "pes-analytic": PESAnalytic(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA),
    "tbptt": TBPTT(NUM_PARTICLES, TRUNCATION_LENGTH),
    "tbptt, staggered": TBPTT(NUM_PARTICLES, TRUNCATION_LENGTH, stagger=True),
    "bptt": BPTT(NUM_PARTICLES),
    "rtrl": RTRL(NUM_PARTICLES, TRUNCATION_LENGTH),
    "uoro": UORO(NUM_PARTICLES, TRUNCATION_LENGTH),
}
"""Those that run on device problems with derivatives alone."""

ON_HOST = list(ESTIMATORS)
ESTIMATORS.update(DIFFERENTIATING)

every_estimator = pytest.mark.parametrize("name", ESTIMATORS)
every_estimator_on_the_host = pytest.mark.parametrize("name", ON_HOST)
every_driver = pytest.mark.parametrize("driver", counting.ROLLOUTS)
every_estimator_on_its_drivers = pytest.mark.parametrize(
    ("name", "driver"),
    [(name, "device") for name in ESTIMATORS] + [(name, "host") for name in ON_HOST],
)


def make_rollout(driver: str, name: str = "pes") -> Any:
    if name in DIFFERENTIATING:
        return counting.CompiledRollout(recurrent.Ending(curvature=0.5), HORIZON)
    return counting.ROLLOUTS[driver](HORIZON, 2.5)


def theta_of(name: str) -> jax.Array:
    return RECURRENT_THETA if name in DIFFERENTIATING else THETA


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
            if field.name == "observations":
                assert value is None  # they are not normalised
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
    """It goes on with the next episode, as ES and PES that waits do not."""
    pes = PES(NUM_PAIRS, HORIZON, SIGMA, restart_at_once=True)
    rollout = make_rollout("host")
    state = pes.init(rollout, THETA, jax.random.key(1))
    gradient, _, report = pes.estimate(rollout, THETA, state, keys(1)[0])
    es_gradient, _, es_report = run("es", "host")[0]
    assert (gradient != es_gradient).all()
    assert report.env_steps > es_report.env_steps


def test_truncated_es_keeps_the_state_that_the_mean_reached():
    """As of a single particle that the mean theta runs, on the same episodes."""
    rollout = make_rollout("host")
    mean = rollout.reset(jax.random.key(1), 1, members=1)
    for _, state, _ in run("truncated-es", "host"):
        mean, _ = rollout.unroll(
            mean, THETA[None], TRUNCATION_LENGTH, single_episode=True
        )
        jax.tree.map(np.testing.assert_array_equal, state, mean)


def test_perturbations_come_in_adjacent_antithetic_pairs():
    perturbation = antithetic_perturbations(jax.random.key(0), 5000, 3, 0.2)
    assert perturbation.shape == (10_000, 3)
    np.testing.assert_array_equal(perturbation[0::2], -perturbation[1::2])
    assert len(np.unique(np.abs(perturbation))) > 14_900
    # Five standard errors of a standard deviation and of a mean of 15 000 normals:
    # probability 6e-7 each.
    positive = np.asarray(perturbation[0::2])
    assert positive.std() == pytest.approx(0.2, abs=5 * 0.2 / np.sqrt(2 * 15_000))
    assert abs(positive.mean()) < 5 * 0.2 / np.sqrt(15_000)


@pytest.mark.parametrize(("rows", "size"), [(5, 1), (3, 4), (4, 4), (7, 3)])
def test_orthogonal_rows_are_gram_schmidts_with_their_lengths_kept(rows, size):
    noise = np.random.default_rng(0).normal(size=(rows, size))
    expected = noise.copy()
    for i in range(rows):
        for before in expected[i - i % size : i]:
            expected[i] -= before * (before @ expected[i]) / (before @ before)
        expected[i] *= np.linalg.norm(noise[i]) / np.linalg.norm(expected[i])
    orthogonal = orthogonal_rows(jnp.asarray(noise, jnp.float32))
    np.testing.assert_allclose(orthogonal, expected, rtol=1e-4, atol=1e-5)


def test_orthogonal_perturbations_are_antithetic_and_of_the_same_draws():
    key, kinds = jax.random.key(0), (False, True)
    plain, orthogonal = (
        antithetic_perturbations(key, 5, 3, 0.2, orthogonal=kind) for kind in kinds
    )
    np.testing.assert_array_equal(orthogonal[0::2], -orthogonal[1::2])
    rows = orthogonal_rows(plain[0::2])
    np.testing.assert_allclose(orthogonal[0::2], rows, rtol=1e-5, atol=1e-6)


def test_the_noise_of_an_episode_is_orthogonal_to_that_of_others_of_its_index():
    """Whatever episodes the other particles are in."""
    key = jax.random.key_data(jax.random.key(0))
    episode = np.array([0, 0, 2, 1, 0, 0, 1, 1])
    noise = episode_noise(key, episode, 3, orthogonal=True)
    for index in range(3):
        plain = episode_noise(key, np.full(8, index), 3)
        rows = orthogonal_rows(plain[0::2])
        whole = jnp.stack([rows, -rows], axis=1).reshape(8, 3)
        there = episode == index
        np.testing.assert_allclose(noise[there], whole[there], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in ON_HOST if n != "random-search"])
def test_antithetic_parts_of_equal_losses_cancel(name):
    """Where both members lose the same, whatever theta, nothing is learned."""

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


def test_the_signal_to_noise_ratio_is_that_of_the_two_halves():
    contributions = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    pairs = contributions[0::2] + contributions[1::2]
    first, second = 2 * (pairs[0] + pairs[2]), 2 * (pairs[1] + pairs[3])
    variance = np.sum((first - second) ** 2) / 4
    expected = first @ second / variance
    assert signal_to_noise(jnp.asarray(contributions)) == pytest.approx(expected, 1e-4)
    assert np.isnan(signal_to_noise(jnp.asarray(contributions[:2])))


@pytest.mark.parametrize(
    "make",
    [
        lambda p, s: PES(p, 4, s),
        lambda p, s: GPES(p, 4, 8, s),
        lambda p, s: NRES(p, 4, s),
        lambda p, s: PESAnalytic(p, 4, s),
        lambda p, s: ARS(p, 1, s),
        ES,
        lambda p, s: TruncatedES(p, 4, s),
    ],
)
@pytest.mark.parametrize(
    ("num_pairs", "sigma", "message"),
    [
        (0, 0.1, "num_pairs=0 must be at least 1 .* use 10"),
        (-3, 0.1, "num_pairs=-3"),
        (2, 0.0, "sigma=0.0 must be above 0; use 0.1"),
        (2, -1.0, "sigma=-1.0"),
        (2, float("nan"), "sigma=nan"),
    ],
)
def test_a_population_that_cannot_be_is_refused(make, num_pairs, sigma, message):
    with pytest.raises(ValueError, match=message):
        make(num_pairs, sigma)


@pytest.mark.parametrize(
    "kind", [BPTT, lambda n: TBPTT(n, 4), lambda n: RandomSearch(n, 1.0)]
)
def test_a_number_of_particles_below_one_is_refused(kind):
    with pytest.raises(ValueError, match="num_particles=0 must be at least 1; use 8"):
        kind(0)


PARTIAL = [
    lambda k: PES(2, k, 0.1),
    lambda k: GPES(2, k, k, 0.1),
    lambda k: NRES(2, k, 0.1),
    lambda k: TruncatedES(2, k, 0.1),
]
PARTIAL_DIFFERENTIATING = [
    lambda k: PESAnalytic(2, k, 0.1),
    lambda k: TBPTT(2, k),
    lambda k: RTRL(2, k),
    lambda k: UORO(2, k),
]


@pytest.mark.parametrize("make", PARTIAL + PARTIAL_DIFFERENTIATING)
def test_a_truncation_length_below_one_is_refused(make):
    with pytest.raises(ValueError, match="truncation_length=0 must be at least 1 step"):
        make(0)


@pytest.mark.parametrize("make", PARTIAL_DIFFERENTIATING)
def test_derivatives_refuse_a_truncation_length_beyond_the_horizon(make):
    with pytest.raises(ValueError, match="=7 is longer than the horizon of 6 steps"):
        make(7).init(make_rollout("device"), THETA, jax.random.key(0))


@every_driver
@pytest.mark.parametrize("make", PARTIAL)
def test_a_truncation_length_beyond_the_horizon_is_refused(make, driver):
    message = "truncation_length=7 is longer than the horizon of 6 steps; use 6 or less"
    with pytest.raises(ValueError, match=message):
        make(7).init(make_rollout(driver), THETA, jax.random.key(0))


def test_truncated_es_is_refused_where_states_cannot_be_copied():
    rollout = counting.host_rollout(HORIZON, can_copy=False)
    with pytest.raises(ValueError, match="cannot be copied; use pes or es"):
        ESTIMATORS["truncated-es"].init(rollout, THETA, jax.random.key(0))
    for name in ("pes", "gpes", "nres", "es", "ars", "random-search"):
        ESTIMATORS[name].init(rollout, THETA, jax.random.key(0))


@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_derivatives_are_refused_where_there_are_none(name):
    class InPieces(recurrent.Recurrent):
        differentiable = False

    message = f"{name.split(',')[0]} differentiates .* use pes, nres, gpes or es"
    for rollout in (
        make_rollout("host"),
        DeviceRollout(InPieces(), HORIZON),
        DeviceRollout(FinalLoss(InPieces()), HORIZON),
    ):
        with pytest.raises(ValueError, match=message):
            ESTIMATORS[name].init(rollout, THETA, jax.random.key(0))
        with pytest.raises(ValueError, match="derivatives"):
            rollout.differentiable()


@dataclasses.dataclass(frozen=True)
class Looping(recurrent.Recurrent):
    """With a loop in its step, which has a forward mode alone."""

    def step(self, theta, state):
        theta = lax.while_loop(lambda x: x[0] > 1, lambda x: x / 2, theta)
        return super().step(theta, state)


@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_reverse_mode_is_refused_where_there_is_none(name):
    rollout, start = DeviceRollout(Looping(), HORIZON), jax.random.key(0)
    if name == "rtrl":  # Goes forwards.
        ESTIMATORS[name].init(rollout, RECURRENT_THETA, start)
        return
    message = f"{name.split(',')[0]} differentiates in reverse.* use rtrl, pes"
    with pytest.raises(ValueError, match=message):
        ESTIMATORS[name].init(rollout, RECURRENT_THETA, start)


@pytest.mark.parametrize("name", ["es", "ars", "random-search", "bptt"])
def test_whole_episodes_are_refused_where_they_have_no_end(name):
    endless = DeviceRollout(make_rollout("device").problem, horizon=None)
    with pytest.raises(
        ValueError, match=f"{name} plays .* use pes or truncated-es, or"
    ):
        ESTIMATORS[name].init(endless, THETA, jax.random.key(0))


def test_staggering_is_refused_where_episodes_have_no_end():
    endless = DeviceRollout(make_rollout("device").problem, horizon=None)
    with pytest.raises(ValueError, match="stagger needs a finite horizon"):
        ESTIMATORS["pes, staggered"].init(endless, THETA, jax.random.key(0))
