"""The differentiating estimators beside loops-only transcriptions.

On a recurrent system whose episodes end by themselves, at random steps, and by time
limits, inside unrolls and with them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_derivatives
from jax import lax
from recurrent import SIGMA, START, THETA, A, B, Ending, W, float32
from reference_derivatives import Slopes

from pes_rl.agents import (
    BPTT,
    RTRL,
    TBPTT,
    UORO,
    PESAnalytic,
    antithetic_perturbations,
)
from pes_rl.agents.uoro import random_signs
from pes_rl.envs import DeviceRollout

NUM_PARTICLES, TRUNCATION_LENGTH, HORIZON, NUM_UPDATES = 4, 4, 5, 6
LIMITS = [1, 2, 3, 5]
START_KEY = jax.random.key(11)
UPDATE_KEYS = [jax.random.key(100 + update) for update in range(NUM_UPDATES)]
CUBIC = Ending(curvature=0.5, cubic=0.1)


class EndingSystem:
    """`Ending` in NumPy, with its derivatives."""

    state_size = 2

    def __init__(self, num_pairs: int) -> None:
        self.pair_keys = jax.random.split(START_KEY, num_pairs)

    def begin(self, pair: int, episode: int) -> Any:
        key = jax.random.fold_in(self.pair_keys[pair], episode)
        bits = np.asarray(jax.random.key_data(key)).astype(np.int64)
        return 0, int(2 + bits[0] // 3 % 3), START * (bits % 3 - 1.0)

    def step(self, state: Any, theta: np.ndarray) -> tuple[Any, float, bool]:
        t, last, s = state
        s = A @ s + B @ theta
        product = W[t] @ s
        loss = product + CUBIC.curvature / 2 * s @ s + CUBIC.cubic / 3 * product**3
        return (t + 1, last, s), loss, t == last

    def slopes(self, state: Any, theta: np.ndarray) -> Slopes:
        t, _, s = state
        s = A @ s + B @ theta
        by_new_state = W[t] + CUBIC.curvature * s + CUBIC.cubic * W[t] * (W[t] @ s) ** 2
        return Slopes(A, B, by_new_state @ A, by_new_state @ B)


def make_particles(
    num_pairs: int, members: int, stagger: bool
) -> list[reference.Particle]:
    system = EndingSystem(num_pairs)
    limits = LIMITS if stagger else [HORIZON] * num_pairs
    return [
        reference.Particle(system, pair, HORIZON, limits[pair])
        for pair in range(num_pairs)
        for _ in range(members)
    ]


def run(estimator: Any) -> tuple[np.ndarray, int]:
    """Gradients of all updates, and the steps simulated for them."""
    rollout = DeviceRollout(CUBIC, HORIZON)

    @jax.jit
    def updates() -> Any:
        def update(state: Any, key: jax.Array) -> Any:
            gradient, state, report = estimator.estimate(
                rollout, float32(THETA), state, key
            )
            return state, (gradient, report.env_steps)

        state = estimator.init(rollout, float32(THETA), START_KEY)
        return lax.scan(update, state, jnp.stack(UPDATE_KEYS))[1]

    gradients, steps = updates()
    return np.asarray(gradients), int(steps.sum())


def assert_same(estimator: Any, expected: Any, particles: Any) -> None:
    gradients, steps = run(estimator)
    np.testing.assert_allclose(gradients, expected, rtol=2e-5, atol=2e-5)
    assert steps == sum(particle.steps for particle in particles)


@pytest.mark.parametrize("stagger", [False, True])
@pytest.mark.parametrize("kind", [TBPTT, RTRL])
def test_tbptt_and_rtrl_are_their_transcriptions(kind, stagger):
    particles = make_particles(NUM_PARTICLES, 1, stagger)
    expected = reference_derivatives.rtrl(
        particles, THETA, TRUNCATION_LENGTH, NUM_UPDATES, truncated=kind is TBPTT
    )
    assert_same(kind(NUM_PARTICLES, TRUNCATION_LENGTH, stagger), expected, particles)


def test_bptt_is_its_transcription():
    particles = make_particles(NUM_PARTICLES, 1, False)
    expected = reference_derivatives.bptt(particles, THETA, NUM_UPDATES)
    assert_same(BPTT(NUM_PARTICLES), expected, particles)


@pytest.mark.parametrize("truncation_length", [1, TRUNCATION_LENGTH])
def test_uoro_is_its_transcription(truncation_length):
    particles = make_particles(NUM_PARTICLES, 1, True)

    def signs(update: int) -> np.ndarray:
        like = [jnp.zeros((NUM_PARTICLES, 2))]
        return np.asarray(random_signs(UPDATE_KEYS[update], like)[0])

    expected = reference_derivatives.uoro(
        particles, THETA, signs, truncation_length, NUM_UPDATES
    )
    assert_same(UORO(NUM_PARTICLES, truncation_length, True), expected, particles)


@pytest.mark.parametrize("stagger", [False, True])
def test_pes_analytic_is_its_transcription(stagger):
    particles = make_particles(NUM_PARTICLES, 2, stagger)
    means = make_particles(NUM_PARTICLES, 1, stagger)
    perturbations = np.stack(
        [
            antithetic_perturbations(key, NUM_PARTICLES, THETA.size, SIGMA)
            for key in UPDATE_KEYS
        ]
    )
    expected = reference_derivatives.pes_analytic(
        particles, means, THETA, perturbations, SIGMA, TRUNCATION_LENGTH
    )
    estimator = PESAnalytic(NUM_PARTICLES, TRUNCATION_LENGTH, SIGMA, stagger)
    assert_same(estimator, expected, [*particles, *means])


def test_episodes_end_inside_unrolls_with_them_and_twice_in_one():
    particles = make_particles(NUM_PARTICLES, 1, True)
    reference_derivatives.rtrl(particles, THETA, TRUNCATION_LENGTH, NUM_UPDATES)
    lengths = [[steps for _, steps in particle.finished] for particle in particles]
    ends = [np.cumsum(own) for own in lengths]
    assert any((own % TRUNCATION_LENGTH == 0).any() for own in ends)
    assert any((own % TRUNCATION_LENGTH != 0).any() for own in ends)
    unrolls = [(own - 1) // TRUNCATION_LENGTH for own in ends]
    assert any(len(set(own)) < len(own) for own in unrolls)
    assert {3, 4, 5} <= {steps for own in lengths for steps in own}
