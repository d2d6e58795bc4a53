"""Estimators on a policy with a carry, beside their loops-only transcriptions.

For an estimator, policy and simulation together are one system.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import remembering
from counting import HostCounting

from pes_rl.agents import (
    ES,
    NRES,
    PES,
    TruncatedES,
    antithetic_perturbations,
    episode_noise,
)

NUM_PAIRS, LENGTH, SIGMA, HORIZON = 4, 5, 0.7, 6
THETA = np.array([0.25, -0.5], np.float32)
KEY = jax.random.key(8)
UPDATE_KEYS = [jax.random.key(100 + update) for update in range(6)]
PERTURBATIONS = np.stack(
    [antithetic_perturbations(key, NUM_PAIRS, 2, SIGMA) for key in UPDATE_KEYS]
)


def estimates(estimator, driver):
    rollout = remembering.ROLLOUTS[driver](HORIZON)
    theta = jnp.asarray(THETA)
    state = estimator.init(rollout, theta, KEY)
    gradients = []
    for key in UPDATE_KEYS:
        gradient, state, _ = estimator.estimate(rollout, theta, state, key)
        gradients.append(gradient)
    return gradients


def particles(num_pairs=NUM_PAIRS, members=2, key=KEY):
    keys = jax.random.split(key, num_pairs)
    system = remembering.RememberingSystem(HostCounting(HORIZON), keys)
    return [
        reference.Particle(system, i // members, HORIZON, HORIZON)
        for i in range(members * num_pairs)
    ]


def by_loops(name, estimator):
    if name == "pes":
        return reference.pes(particles(), THETA, PERTURBATIONS, SIGMA, LENGTH, False)
    if name == "es":
        return reference.full_es(particles(), THETA, PERTURBATIONS, SIGMA)
    if name == "truncated-es":
        (mean,) = particles(1, members=1)
        return reference.truncated_es(mean, THETA, PERTURBATIONS, SIGMA, LENGTH)
    noise_key = estimator.init(
        remembering.device_rollout(HORIZON), jnp.asarray(THETA), KEY
    ).key

    def noise(episode):
        return episode_noise(noise_key, np.full(2 * NUM_PAIRS, episode), THETA.size)

    own = particles(key=jax.random.split(KEY)[0])
    return reference.nres(own, THETA, noise, SIGMA, LENGTH, len(UPDATE_KEYS))


ESTIMATORS = {
    "pes": PES(NUM_PAIRS, LENGTH, SIGMA),
    "nres": NRES(NUM_PAIRS, LENGTH, SIGMA),
    "es": ES(NUM_PAIRS, SIGMA),
    "truncated-es": TruncatedES(NUM_PAIRS, LENGTH, SIGMA),
}


@pytest.mark.parametrize(
    ("name", "driver"),
    [*((name, "host") for name in ESTIMATORS), ("pes", "device")],
)
def test_estimates_are_those_of_the_transcription(name, driver):
    expected = by_loops(name, ESTIMATORS[name])
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(
        estimates(ESTIMATORS[name], driver), expected, rtol=1e-5, atol=tolerance
    )
