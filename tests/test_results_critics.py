"""The study of results/critics: what it measures with critics is what theory says.

Means are within 5 standard errors, which chance fails less often than once in 1e6.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import device_rollout
from recurrent import (
    SIGMA,
    SYSTEMS,
    THETA,
    A,
    B,
    W,
    effects_of_unrolls,
    expected,
    float32,
)

from pes_rl.analysis.signal_pes import PESStream
from pes_rl.analysis.signal_sums import measure
from pes_rl.analysis.signal_truncated_es import TruncatedESStream
from pes_rl.envs import DeviceRollout

STUDY = Path(__file__).parents[1] / "results" / "critics"
HORIZON, K, UNROLLS, D, CHAINS = 6, 2, 3, 3, 256


@pytest.fixture(scope="module")
def study():
    """The study's modules."""
    names = "critic_values", "critic_streams", "critic_report"
    sys.path.insert(0, str(STUDY))
    try:
        values, streams, report = map(import_module, names)
    finally:
        sys.path.remove(str(STUDY))
        for name in names:
            sys.modules.pop(name, None)
    return SimpleNamespace(values=values, streams=streams, report=report)


def wrong(observation, elapsed):
    """No critic, and one that has nothing to do with the loss."""
    made_up = 2 * jnp.sin(3 * observation[:, 0]) + observation[:, 1]
    made_up = made_up + jnp.asarray(elapsed, jnp.float32)
    return jnp.stack([jnp.zeros_like(made_up), made_up])


def exact(observation, elapsed):
    """No critic, and the linear system's expected loss to go."""
    slope, constant = np.zeros(2), 0.0
    slopes, constants = [slope], [constant]
    for t in reversed(range(HORIZON)):
        constant += (W[t] + slope) @ B @ THETA
        slope = A.T @ (W[t] + slope)
        slopes.insert(0, slope)
        constants.insert(0, constant)
    to_go = jnp.sum(float32(slopes)[elapsed] * observation, axis=1)
    to_go = to_go + float32(constants)[elapsed]
    return jnp.stack([jnp.zeros_like(to_go), to_go])


def last(rollout, theta, stream, episodes):
    steps = episodes * 2 * CHAINS * rollout.horizon
    *_, found = measure(rollout, theta, stream, CHAINS, steps, jax.random.key(0))
    return found


def z_scores(estimates, mean):
    """Of chains' means [C, D]."""
    error = estimates.std(0, ddof=1) / np.sqrt(len(estimates))
    return (estimates.mean(0) - mean) / error


@pytest.mark.parametrize("name", ["linear", "quadratic", "cubic"])
def test_a_wrong_critic_leaves_pes_unbiased(study, name):
    rollout = DeviceRollout(SYSTEMS[name], HORIZON)
    stream = study.streams.CriticStream(
        K, SIGMA, (0.5, 1.0), critics=("none", "wrong"), values=wrong
    )
    found = last(rollout, float32(THETA), stream, 40)
    mean = expected(SYSTEMS[name], K, UNROLLS, HORIZON).mean(0)
    decayed, unbiased = found.means.estimates[2:]
    assert np.abs(z_scores(unbiased, mean)).max() < 5
    assert np.abs(z_scores(decayed, mean)).max() > 8  # a bias would be seen


def test_a_wrong_critic_leaves_pes_unbiased_where_theta_decides_ends(study):
    """On the same draws the difference to PES is noise of mean 0."""
    theta = float32([0.2, -0.1])
    stream = study.streams.CriticStream(
        4,
        0.5,
        (0.5, 1.0),
        critics=("none", "wrong"),
        values=wrong,
        observe=observation_of_device,
    )
    found = last(device_rollout(8), theta, stream, 40)
    plain, critic = found.means.estimates[1], found.means.estimates[3]
    assert np.abs(z_scores(critic - plain, 0)).max() < 5
    assert np.abs(critic - plain).mean() > 0.1 * np.abs(plain).mean()
    plain, critic = found.means.estimates[0], found.means.estimates[2]
    assert np.abs(z_scores(critic - plain, 0)).max() > 8


def observation_of_device(particles):
    return particles.state[1]


def test_the_exact_critic_removes_the_bias_and_all_noise_but_that_of_its_unroll(study):
    """With lambda = 0: mean g_u and noise (D + 1) |g_u|^2, g_u that by theta_u."""
    rollout = DeviceRollout(SYSTEMS["linear"], HORIZON)
    stream = study.streams.CriticStream(
        K, SIGMA, (0.0, 1.0), critics=("none", "exact"), values=exact
    )
    found = last(rollout, float32(THETA), stream, 20)
    effects = effects_of_unrolls(K, HORIZON)
    plain, _, critic, _ = found.means.estimates
    assert np.abs(z_scores(critic, effects.mean(0))).max() < 5
    assert np.abs(z_scores(plain, effects.mean(0))).max() > 8
    noise = (D + 1) * np.sum(effects**2, axis=1).mean()
    assert found.means.spread[2].mean() == pytest.approx(noise, rel=0.03)


def test_the_exact_critic_removes_the_bias_of_truncated_es(study):
    rollout = DeviceRollout(SYSTEMS["linear"], HORIZON)
    arguments = K, SIGMA, ("none", "exact"), exact
    stream = study.streams.TruncatedCriticStream(*arguments)
    found = last(rollout, float32(THETA), stream, 40)
    gradient = expected(SYSTEMS["linear"], K, UNROLLS, HORIZON).mean(0)
    plain, critic = found.means.estimates
    assert np.abs(z_scores(critic, gradient)).max() < 5
    assert np.abs(z_scores(plain, gradient)).max() > 8
    theirs = last(rollout, float32(THETA), TruncatedESStream(K, SIGMA), 20)
    assert found.updates == theirs.updates  # Steps count twice, for two critics.
    for name in ("estimates", "spread", "pair_noise", "pair_steps", "shared_steps"):
        ours, known = getattr(found.means, name), getattr(theirs.means, name)
        known = known[0] if name in ("estimates", "spread") else known
        np.testing.assert_allclose(ours[0], known, rtol=1e-4, atol=1e-4)


def test_a_critic_of_0_is_pes(study):
    """The telescoped sum with b = 0, to rounding."""
    rollout = DeviceRollout(SYSTEMS["linear"], HORIZON)
    theta, decays = float32(THETA), (0.5, 1.0)
    stream = study.streams.CriticStream(
        K, SIGMA, decays, critics=("none", "wrong"), values=wrong
    )
    ours = last(rollout, theta, stream, 2)
    theirs = last(rollout, theta, PESStream(K, SIGMA, decays), 2)
    assert ours.steps == theirs.steps
    for name in ("estimates", "spread", "pair_steps"):
        found, known = getattr(ours.means, name), getattr(theirs.means, name)
        np.testing.assert_allclose(found[: len(known)], known, rtol=1e-4, atol=1e-4)


def test_critics_are_fitted_to_what_is_to_come(study):
    rollout = DeviceRollout(SYSTEMS["linear"], HORIZON)
    arguments = rollout, float32(THETA), K, SIGMA, 64, 64 * 2 * HORIZON * 20
    samples = study.values.record(*arguments, jax.random.key(0))
    assert len(samples.to_go) == 64 * 2 * UNROLLS * 20  # all of whole episodes
    critics = study.values.fit(samples, HORIZON, K)
    found = np.asarray(critics(samples.observation, samples.elapsed))
    true = np.asarray(exact(samples.observation, samples.elapsed))[1]
    assert (found[0] == 0).all()
    for age in range(UNROLLS):
        at = samples.elapsed == K * age
        mean = samples.to_go[at, -1].mean()
        np.testing.assert_allclose(found[1][at], mean, rtol=1e-4)
    errors = np.sqrt(np.mean((found[critics.names.index("discount 1")] - true) ** 2))
    assert errors < 0.1 * true.std()
    first, second = samples.twins.T
    assert len(first) == len(true) // 2 and (first % 2 == 0).all()
    assert (second == first + 1).all()
    assert critics.explained[:2] == pytest.approx((0, 0), abs=1e-6)
    # What the exact critic leaves is noise that is yet to come.
    difference, value = (v[first] - v[second] for v in (samples.to_go[:, -1], true))
    known = 1 - np.mean((difference - value) ** 2) / np.mean(difference**2)
    assert known > 0.2
    assert critics.explained[-1] == pytest.approx(known, abs=0.1)


def test_losses_to_go_end_with_their_episode(study):
    loss = np.ones((4, 1, 3))
    ended = np.array([[False], [True], [False], [False]])
    to_go, known = study.values._losses_to_go(loss, ended, np.array([0.5, 1.0, 1.0]))
    assert known[:, 0].tolist() == [True, True, False, False]
    assert to_go[:2, 0].tolist() == [[1.5, 2, 2], [1, 1, 1]]
