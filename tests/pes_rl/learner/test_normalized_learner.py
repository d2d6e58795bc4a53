"""Training on normalised observations, beside a loops-only transcription of it."""

import logging
from dataclasses import replace
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from pes_rl.agents import PES, antithetic_perturbations
from pes_rl.envs import ObservationMoments
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig

NUM_PAIRS, LENGTH, SIGMA, HORIZON, RATE = 3, 5, 0.7, 8, 0.001
THETA = np.array([0.25, -0.5], np.float32)
KEY = jax.random.key(8)
NUM_UPDATES = 4


def act(theta: Any, observation: Any) -> Any:
    xp = theta.__array_namespace__()
    return xp.vecdot(theta, observation)[..., None]


class NormalizedSystem(counting.CountingSystem):
    """The counting environment seen through statistics that are set from outside.

    Attributes:
        acted_on: Every observation that an action answered.
    """

    def __init__(self, pair_keys: jax.Array) -> None:
        super().__init__(counting.HostCounting(HORIZON), pair_keys)
        self.acted_on: list[np.ndarray] = []
        self.mean, self.std = np.zeros(2), np.ones(2)

    def act(self, thetas: np.ndarray, observations: np.ndarray) -> np.ndarray:
        self.acted_on.extend(observations.astype(np.float64))
        return act(thetas, (observations - self.mean) / self.std)


def transcription() -> tuple[np.ndarray, NormalizedSystem]:
    """theta after all updates of PES, and the system with all it has seen."""
    estimator_key, run_key = jax.random.split(KEY)
    system = NormalizedSystem(jax.random.split(estimator_key, NUM_PAIRS))
    particles = [
        reference.Particle(system, pair, HORIZON, HORIZON)
        for pair in range(NUM_PAIRS)
        for _ in range(2)
    ]
    theta, accumulator = THETA.astype(np.float64), np.zeros((2 * NUM_PAIRS, 2))
    for update in range(NUM_UPDATES):
        key = jax.random.fold_in(run_key, update)
        e = np.asarray(antithetic_perturbations(key, NUM_PAIRS, 2, SIGMA), np.float64)
        gradient = np.zeros(2)
        for i, particle in enumerate(particles):
            accumulator[i] += e[i]
            for _ in range(LENGTH):
                loss, ended = particle.step(theta + e[i])
                gradient += accumulator[i] * loss
                if ended:
                    accumulator[i] = 0.0
                    break
        theta -= RATE * gradient / (2 * NUM_PAIRS * SIGMA**2)
        system.mean = np.mean(system.acted_on, axis=0)
        system.std = np.std(system.acted_on, axis=0)
    return theta, system


def make_learner(driver: str) -> Learner:
    rollout: Any = counting.ROLLOUTS[driver](HORIZON)
    if driver == "device":
        rollout = replace(rollout, problem=replace(rollout.problem, act=act))
    else:
        rollout = replace(rollout, act=act)
    return Learner(
        rollout,
        PES(NUM_PAIRS, LENGTH, SIGMA),
        OptimizerConfig("sgd", RATE),
        total_timesteps=1000,
        observations=ObservationMoments.empty(2),
    )


@pytest.mark.parametrize("driver", counting.ROLLOUTS)
def test_training_is_its_transcription_from_one_compilation(driver, caplog):
    learner = make_learner(driver)
    state = learner.init(jnp.asarray(THETA), KEY)
    state, _ = learner.run(state, 2)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        state, reports = learner.run(state, 2)
    compiled = [m for m in caplog.messages if m.startswith("Compiling")]
    assert not [m for m in compiled if "_scan" in m or "_descend" in m]
    theta, system = transcription()
    moments = state.observations
    assert moments is not None
    assert reports.episodes.sum() > 0
    assert moments.count == len(system.acted_on) < NUM_UPDATES * 2 * NUM_PAIRS * LENGTH
    np.testing.assert_allclose(moments.mean, system.mean, rtol=1e-5)
    np.testing.assert_allclose(moments.std, system.std, rtol=1e-5)
    np.testing.assert_allclose(state.theta, theta, rtol=1e-4)
    assert np.abs(theta - THETA).min() > 1e-3
