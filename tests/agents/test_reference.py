"""The estimators beside loops-only transcriptions of their algorithm boxes.

On the counting environment, whose members end at different steps: by themselves, by
time limits, and by divergence.
"""

from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from pes_rl.agents import (
    ES,
    GPES,
    NRES,
    PES,
    Estimator,
    Report,
    TruncatedES,
    antithetic_perturbations,
    episode_noise,
)
from pes_rl.envs import Rollout

NUM_PAIRS = 4
TRUNCATION_LENGTH = 5
SIGMA = 0.7
HORIZON = 6
DIVERGED_LOSS = 2.5
THETA = np.array([0.25, -0.5], np.float32)
START_KEY = jax.random.key(8)
UPDATE_KEYS = [jax.random.key(100 + update) for update in range(6)]

WORLDS = {
    "device": ("device", {}),
    "host": ("host", {}),
    "host, diverging": ("host", {"diverges_at": 3}),
}


def make_particles(num_pairs, members=2, limits=None, start_key=START_KEY, **options):
    environment = counting.HostCounting(HORIZON, **options)
    pair_keys = jax.random.split(start_key, num_pairs)
    system = counting.CountingSystem(environment, pair_keys)
    limits = limits or [HORIZON] * num_pairs
    return [
        reference.Particle(system, pair, HORIZON, limits[pair], DIVERGED_LOSS)
        for pair in range(num_pairs)
        for _ in range(members)
    ]


def all_perturbations() -> np.ndarray:
    draws = [
        antithetic_perturbations(key, NUM_PAIRS, THETA.size, SIGMA)
        for key in UPDATE_KEYS
    ]
    return np.stack(draws)


def run(estimator: Estimator, world: str) -> tuple[list[Any], list[Report]]:
    """Gradients and reports of all updates."""
    driver, options = WORLDS[world]
    rollout: Rollout = counting.ROLLOUTS[driver](HORIZON, DIVERGED_LOSS, **options)
    theta = jnp.asarray(THETA)
    state = estimator.init(rollout, theta, START_KEY)
    gradients, reports = [], []
    for key in UPDATE_KEYS:
        gradient, state, report = estimator.estimate(rollout, theta, state, key)
        gradients.append(gradient)
        reports.append(report)
    return gradients, reports


def noise_key_and_particles(
    estimator: NRES | GPES, world: str, stagger: bool
) -> tuple[jax.Array, list[Any]]:
    """What decides the noise, and the particles, which another key starts."""
    driver, options = WORLDS[world]
    rollout = counting.ROLLOUTS[driver](HORIZON, DIVERGED_LOSS, **options)
    key = estimator.init(rollout, jnp.asarray(THETA), START_KEY).key
    reset_key, _ = jax.random.split(START_KEY)
    limits = [1, 3, 4, 6] if stagger else None
    return key, make_particles(NUM_PAIRS, limits=limits, start_key=reset_key, **options)


def assert_same_gradients(gradients, expected) -> None:
    """To float32's precision of sums of a few dozen terms."""
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=tolerance)


def assert_same_counts(reports, particles) -> None:
    """Counts and losses of whole episodes, over all updates."""

    def total(name):
        return sum(float(getattr(report, name)) for report in reports)

    finished = [episode for particle in particles for episode in particle.finished]
    assert total("env_steps") == sum(particle.steps for particle in particles)
    assert total("episodes") == len(finished)
    assert total("episode_loss") == sum(loss for loss, _ in finished)
    assert total("episode_steps") == sum(steps for _, steps in finished)
    assert total("diverged") == sum(particle.divergences for particle in particles)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("stagger", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_pes_is_its_transcription(world, stagger, at_once):
    estimator = PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger, at_once)
    gradients, reports = run(estimator, world)
    limits = [1, 3, 4, 6] if stagger else None
    particles = make_particles(NUM_PAIRS, limits=limits, **WORLDS[world][1])
    expected = reference.pes(
        particles, THETA, all_perturbations(), SIGMA, TRUNCATION_LENGTH, at_once
    )
    assert_same_gradients(gradients, expected)
    assert_same_counts(reports, particles)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("at_once", [False, True])
def test_pes_with_a_trace_decay_is_its_transcription(world, at_once):
    """Staggered, in unrolls of two steps, of which an episode has up to three."""
    estimator = PES(NUM_PAIRS, 2, SIGMA, True, at_once, trace_decay=0.7)
    gradients, reports = run(estimator, world)
    particles = make_particles(NUM_PAIRS, limits=[1, 3, 4, 6], **WORLDS[world][1])
    expected = reference.pes(
        particles, THETA, all_perturbations(), SIGMA, 2, at_once, 0.7
    )
    assert_same_gradients(gradients, expected)
    assert_same_counts(reports, particles)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("stagger", [False, True])
def test_nres_is_its_transcription(world, stagger):
    estimator = NRES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger)
    gradients, reports = run(estimator, world)
    key, particles = noise_key_and_particles(estimator, world, stagger)

    def noise(episode: int) -> np.ndarray:
        return episode_noise(key, np.full(2 * NUM_PAIRS, episode), THETA.size)

    expected = reference.nres(
        particles, THETA, noise, SIGMA, TRUNCATION_LENGTH, len(UPDATE_KEYS)
    )
    assert_same_gradients(gradients, expected)
    assert_same_counts(reports, particles)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("stagger", [False, True])
def test_gpes_is_its_transcription(world, stagger):
    """With two periods in the longest episodes, of two unrolls each."""
    length, period = 2, 4
    estimator = GPES(NUM_PAIRS, length, period, SIGMA, stagger)
    gradients, reports = run(estimator, world)
    key, particles = noise_key_and_particles(estimator, world, stagger)

    def noise(episode: int, period: int) -> np.ndarray:
        both = np.full((2, 2 * NUM_PAIRS), [[episode], [period]], np.int32)
        return np.asarray(episode_noise(key, both[0], THETA.size, both[1]))

    expected = reference.gpes(
        particles, THETA, noise, SIGMA, length, period, len(UPDATE_KEYS)
    )
    assert_same_gradients(gradients, expected)
    assert_same_counts(reports, particles)


@pytest.mark.parametrize("world", WORLDS)
def test_full_es_is_its_transcription(world):
    gradients, reports = run(ES(NUM_PAIRS, SIGMA), world)
    particles = make_particles(NUM_PAIRS, **WORLDS[world][1])
    expected = reference.full_es(particles, THETA, all_perturbations(), SIGMA)
    assert_same_gradients(gradients, expected)
    assert_same_counts(reports, particles)


@pytest.mark.parametrize("world", WORLDS)
def test_truncated_es_is_its_transcription(world):
    estimator = TruncatedES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA)
    gradients, reports = run(estimator, world)
    (mean,) = make_particles(1, members=1, **WORLDS[world][1])
    expected = reference.truncated_es(
        mean, THETA, all_perturbations(), SIGMA, TRUNCATION_LENGTH
    )
    assert_same_gradients(gradients, expected)
    # The episodes of the report are the mean particle's, not those of its copies.
    assert len(mean.finished) > 2
    assert sum(int(report.episodes) for report in reports) == len(mean.finished)
    totals = [
        (float(report.episode_loss), int(report.episode_steps)) for report in reports
    ]
    np.testing.assert_allclose(np.sum(totals, 0), np.sum(mean.finished, 0))


def test_the_worlds_hold_the_cases_that_matter():
    """Members that end apart, two ends in an unroll, limits and divergences."""
    particles = make_particles(NUM_PAIRS, limits=[1, 3, 4, 6])
    arguments = (THETA, all_perturbations(), SIGMA, TRUNCATION_LENGTH)
    reference.pes(particles, *arguments, restart_at_once=True)
    ends = [np.cumsum([steps for _, steps in p.finished]) for p in particles]
    assert any(set(ends[i]) != set(ends[i + 1]) for i in (0, 2, 4, 6))
    unrolls = [(own - 1) // TRUNCATION_LENGTH for own in ends]
    assert any(len(set(own)) < len(own) for own in unrolls)
    assert any((own % TRUNCATION_LENGTH == 0).any() for own in ends)
    assert {HORIZON} < {int(steps) for own in ends for steps in np.diff(own)}
    particles = make_particles(NUM_PAIRS, diverges_at=3)
    reference.pes(particles, *arguments, restart_at_once=True)
    assert sum(particle.divergences for particle in particles) > 3
