"""What `pes_rl.analyze signal` measures is what theory says.

Intervals of 95 % are two standard errors; values are within 2.5 of their half widths,
that is 5 standard errors, which chance fails less often than once in 1e5 for each.
"""

from itertools import product

import jax
import numpy as np
import pytest
from counting import ROLLOUTS
from recurrent import SIGMA, SYSTEMS, THETA, Ending, float32, step_gradients
from sampling import ObservedRollout

from pes_rl.analysis.signal_nres import NRESStream
from pes_rl.analysis.signal_pes import PESStream
from pes_rl.analysis.signal_statistics import estimates, make_replicates
from pes_rl.analysis.signal_stream import Setting
from pes_rl.analysis.signal_sums import measure
from pes_rl.analysis.signal_truncated_es import TruncatedESStream
from pes_rl.analysis.signal_verdict import decide
from pes_rl.envs import DeviceRollout

HORIZON, K, UNROLLS, D = 6, 2, 3, 3
PAIRS = 4
DECAYS = (0.0, 0.6, 1.0)


def last(rollout, stream, chains, steps, seed=0):
    """What is known of a stream after `steps` steps."""
    *_, measured = measure(
        rollout, float32(THETA), stream, chains, steps, jax.random.key(seed)
    )
    return measured


@pytest.fixture(scope="module")
def linear():
    """All estimators on the linear system, with few draws for what is exact there."""
    rollout = DeviceRollout(SYSTEMS["linear"], HORIZON)
    streams = (
        NRESStream(HORIZON, SIGMA, "es"),
        NRESStream(K, SIGMA),
        PESStream(K, SIGMA, DECAYS),
        TruncatedESStream(K, SIGMA),
    )
    measured = [
        last(rollout, stream, 100, 100 * 2 * HORIZON * 20, seed)
        for seed, stream in enumerate(streams)
    ]
    return make_replicates(measured, PAIRS)


def closed_forms():
    """(mean of an update, noise of one pair, long noise of one pair) by estimator.

    With g_uv the gradient of unroll u's losses by unroll v's perturbation; the noise of
    the pairs of one state and that which they share apart for truncated ES.
    """
    g = np.zeros((UNROLLS, UNROLLS, D))
    for t in range(HORIZON):
        steps = step_gradients(SYSTEMS["linear"], t, [0] * (t + 1))
        for tau, gradient in enumerate(steps):
            g[t // K, tau // K] += gradient
    total = g.sum((0, 1))
    unrolls = g.sum(1)
    forms = {
        Setting("es", HORIZON): (total, (D + 1) * total @ total, 1),
        Setting("nres", K): (
            total / UNROLLS,
            (D + 1) * np.sum(unrolls**2) / UNROLLS,
            (D + 1) * total @ total / UNROLLS,
        ),
    }
    for decay in DECAYS:
        weight = decay ** np.maximum(
            np.subtract.outer(range(UNROLLS), range(UNROLLS)), 0
        )
        h, noise = np.zeros_like(g), 0.0
        for u in range(UNROLLS):
            own = np.zeros_like(g)
            for m, t in product(range(u + 1), repeat=2):
                own[m, t] = weight[u, m] * g[u, t]
            noise += variance_of(own)
            h += own
        mean = np.einsum("mmd->d", h) / UNROLLS
        forms[Setting("pes", K, decay)] = (
            mean,
            noise / UNROLLS,
            variance_of(h) / UNROLLS,
        )
    direct = g[range(UNROLLS), range(UNROLLS)]
    noise = (D + 1) * np.sum(direct**2) / UNROLLS
    forms[Setting("truncated-es", K)] = direct.mean(0), noise, noise
    return total, direct, forms


def variance_of(h):
    """Trace of the covariance of sum_mt n_m (h_mt . n_t), n unit normal."""
    return D * np.sum(h**2) + np.einsum("mtd,tmd->", h, h)


def assert_near(interval, value, least=0.0):
    half = max((interval.high - interval.low) / 2, least)
    assert half < 0.6 * abs(value) + least  # that it says something
    assert abs(interval.value - value) <= 2.5 * half, (interval, value)


def test_signal_noise_and_cosine_are_the_closed_forms(linear):
    """The bias of lambda = 0 and of truncated ES with them, and correlation in time."""
    total, direct, forms = closed_forms()
    known = {estimate.setting: estimate for estimate in estimates(linear)}
    assert known.keys() == forms.keys()
    for setting, (mean, noise, long_noise) in forms.items():
        found = known[setting]
        if setting.agent == "es":
            long_noise = noise
        noise, long_noise, steps = noise / PAIRS, long_noise / PAIRS, 2 * PAIRS * K
        if setting.agent == "es":
            steps = 2 * PAIRS * HORIZON
        if setting.agent == "truncated-es":
            steps += K
            # Its pairs are all in one unroll of the episode, whose mean is its own.
            noise += np.mean(np.sum((direct - mean) ** 2, axis=1))
        cosine = mean @ total / np.linalg.norm(mean) / np.linalg.norm(total)
        by_steps = 1000 * mean @ mean / (long_noise * steps)
        assert found.steps == steps
        assert_near(found.signal, np.linalg.norm(mean))
        assert_near(found.noise, noise)
        assert_near(found.correlation, long_noise / noise)
        assert_near(found.ratio, mean @ mean / noise)
        assert_near(found.ratio_by_steps, by_steps)
        assert_near(found.cosine, cosine, 1e-3)
        assert_near(found.useful, cosine * abs(cosine) * by_steps)
    # The two that keep the direct effects alone are surely biased.
    for setting in (Setting("pes", K, 0.0), Setting("truncated-es", K)):
        assert known[setting].cosine.high < 0.995


def test_a_critic_leaves_the_gradient_and_takes_bias_away():
    """lambda = 1 has its mean still; lambda = 0 points nearer to the gradient."""
    rollout = ObservedRollout(SYSTEMS["linear"], HORIZON)
    stream = PESStream(K, SIGMA, (0.0, 1.0), (None, 1.0))
    assert [str(s) for s in stream.settings[1:3]] == [
        "pes K 2 lambda 1",
        "pes K 2 lambda 0 critic 1",
    ]
    measured = last(rollout, stream, 100, 100 * 2 * HORIZON * 60)
    found = measured.means.estimates
    total, direct, _ = closed_forms()
    for place, mean in (
        (0, direct.mean(0)),
        (1, total / UNROLLS),
        (3, total / UNROLLS),
    ):
        error = found[place].std(0, ddof=1) / len(found[place]) ** 0.5
        assert (np.abs(found[place].mean(0) - mean) < 5 * error).all()
    plain, critic = (np.abs(found[j].mean(0) - total / UNROLLS).max() for j in (0, 2))
    assert critic < 0.5 * plain


def test_es_and_nres_cannot_be_told_apart_on_whole_episodes(linear):
    """Their noise over an episode is the same, though not that of an update."""
    known = estimates(linear)
    own = Setting("nres", K)
    verdict = decide(linear, known, own, min_cosine=0.995)
    assert verdict.best is None
    assert verdict.sentence.startswith("Cannot tell which is best: ")
    assert "es" in verdict.sentence and "nres K 2" in verdict.sentence
    assert "None is shown to be better than nres K 2" in verdict.sentence
    notes = dict(zip(linear.settings, verdict.notes, strict=True))
    assert notes[Setting("truncated-es", K)] == "biased"
    assert notes[own] in ("first (run)", "as good? (run)")


@pytest.mark.slow
def test_episodes_that_end_early_are_measured_with_mixed_phases():
    """An update's mean is the gradient of an episode over its mean unrolls, 5/3."""
    rollout = DeviceRollout(Ending(), 7)
    es = last(rollout, NRESStream(7, SIGMA, "es"), 64, 30_000)
    nres = last(rollout, NRESStream(3, SIGMA), 64, 30_000, seed=1)
    first, second = estimates(make_replicates([es, nres], PAIRS))
    # Episodes of 3, 4 and 5 steps are 1, 2 and 2 unrolls of three.
    assert first.steps == pytest.approx(2 * PAIRS * 4, rel=0.03)
    assert second.steps == pytest.approx(2 * PAIRS * 4 * 3 / 5, rel=0.03)
    assert second.cosine.low > 0.9
    ratio = first.signal.value / second.signal.value
    halves = [
        (e.signal.high - e.signal.low) / 2 / e.signal.value for e in (first, second)
    ]
    half = np.linalg.norm(halves)
    assert half < 0.2
    assert abs(np.log(ratio * 3 / 5)) < 2.5 * half


@pytest.mark.parametrize(
    "stream",
    [
        PESStream(4, 0.5, (0.5, 1.0)),
        TruncatedESStream(4, 0.5),
        pytest.param(NRESStream(4, 0.5), marks=pytest.mark.slow),
    ],
)
def test_both_drivers_measure_the_same(stream):
    theta = float32([0.2, -0.1])
    found = []
    for make in ROLLOUTS.values():
        windows = measure(make(8), theta, stream, 4, 200, jax.random.key(3))
        *_, measured = windows
        found.append(measured)
    device, host = found
    assert (device.updates, device.steps) == (host.updates, host.steps)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        device.means,
        host.means,
    )
