"""Table of all estimators, and the rollouts that each can run on."""

from typing import Any

import counting
import jax
import jax.numpy as jnp
import pytest
import recurrent

from pes_rl.agents import (
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
    PESAnalytic,
    RandomSearch,
    TruncatedES,
)

# As in test_reference.py, so that the two share compilations.
NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, HORIZON = 4, 5, 0.7, 6
NUM_PARTICLES = 2 * NUM_PAIRS
THETA = jnp.array([0.25, -0.5])
RECURRENT_THETA = recurrent.float32(recurrent.THETA)

ESTIMATORS: dict[str, Estimator] = {
    "pes": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA),
    "pes, staggered": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger=True),
    "pes, at once": PES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, restart_at_once=True),
    "pes, decaying": PES(NUM_PAIRS, 2, SIGMA, trace_decay=0.7),
    "pes, critic": PES(NUM_PAIRS, 2, SIGMA, critic_discount=0.9),
    "gpes": GPES(NUM_PAIRS, 2, 4, SIGMA),
    "gpes, staggered": GPES(NUM_PAIRS, 2, 4, SIGMA, stagger=True),
    "nres": NRES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA),
    "nres, staggered": NRES(NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, stagger=True),
    "nres, ranks": NRES(
        NUM_PAIRS, TRUNCATION_LENGTH, SIGMA, fitness_shaping="centered-ranks"
    ),
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
"""Estimators that run only on device problems with derivatives."""

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
