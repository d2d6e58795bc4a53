"""What `pes_rl.analyze signal` concludes from chains' means: intervals and verdict."""

from itertools import product

import numpy as np

from pes_rl.analysis import signal_statistics
from pes_rl.analysis.signal_statistics import estimates, make_replicates
from pes_rl.analysis.signal_stream import Setting
from pes_rl.analysis.signal_sums import Measured, Sums
from pes_rl.analysis.signal_verdict import decide

D = 3


def synthetic(agent, norm, noise, chains=40, seed=0, updates=10, decay=None):
    """A stream whose chains' means are normal around (norm, 0, 0)."""
    generator = np.random.default_rng(seed)
    spread = np.sqrt(noise / D)
    vectors = generator.normal(scale=spread / np.sqrt(updates), size=(1, chains, D))
    vectors[0, :, 0] += norm
    sums = Sums(
        vectors,
        np.full((1, chains), noise),
        np.zeros(chains),
        np.full(chains, 10.0),
        np.zeros(chains),
    )
    setting = Setting(agent, 5, decay)
    return Measured((setting,), False, updates, 10 * updates * chains, sums)


def test_a_better_estimator_is_recommended_with_how_many_times():
    """Four times the useful ratio: 16 times less noise at half the signal."""
    measured = [synthetic("nres", 2, 16, seed=1), synthetic("pes", 1, 1, decay=1.0)]
    made = make_replicates(measured, 8)
    better, own = Setting("pes", 5, 1.0), Setting("nres", 5)
    verdict = decide(made, estimates(made), own, 0.9)
    assert verdict.best == better
    assert verdict.sentence.startswith("Use pes K 5 lambda 1: it has ")
    assert "times the useful signal-to-noise ratio a step of nres K 5" in (
        verdict.sentence
    )
    assert decide(made, estimates(made), better, 0.9).sentence.startswith("Keep pes")
    assert verdict.notes == ("(run)", "first")
    useful = {e.setting: e.useful.value for e in estimates(made)}
    assert 2 < useful[better] / useful[own] < 8


def test_a_biased_estimator_is_not_recommended_unless_its_direction_is_known():
    """A large useful ratio, with a reference that tells the cosine only roughly."""
    noisy = synthetic("nres", 1, 80, seed=1)
    made = make_replicates([noisy, synthetic("truncated-es", 1, 0.1)], 8)
    known = estimates(made)
    assert known[1].useful.value > known[0].useful.value
    assert known[1].cosine.low < 0.95 < known[1].cosine.high
    verdict = decide(made, known, None, 0.95)
    assert verdict.best is None
    assert "truncated-es K 5 may be as good or better" in verdict.sentence
    precise = synthetic("nres", 1, 1, seed=1)
    made = make_replicates([precise, synthetic("truncated-es", 1, 0.1)], 8)
    assert decide(made, estimates(made), None, 0.95).best == made.settings[1]


def test_a_lost_gradient_recommends_nothing():
    measured = [synthetic("nres", 0, 1), synthetic("pes", 0, 1, seed=1, decay=1.0)]
    made = make_replicates(measured, 8)
    verdict = decide(made, estimates(made), None, 0.9)
    assert verdict.best is None and "lost in noise" in verdict.sentence


def test_inner_products_are_those_of_independent_chains():
    """Of all, and without each chain, as loops over pairs of chains have them."""
    generator = np.random.default_rng(0)
    streams = [generator.normal(size=shape) for shape in ((2, 4, 3), (1, 5, 3))]
    measured = [
        Measured((), False, 1, 1, Sums(vectors, *(np.zeros(1),) * 4))
        for vectors in streams
    ]
    products, _ = signal_statistics._inner_products(measured)
    rows = [(0, j) for j in range(2)] + [(1, 0)]
    left_out = [(None, None)] + [(s, c) for s in (0, 1) for c in range(4 + s)]
    for found, (stream, chain) in zip(products, left_out, strict=True):
        for (a, (s, j)), (b, (r, k)) in product(enumerate(rows), repeat=2):
            values = [
                streams[s][j, c] @ streams[r][k, d]
                for c, d in product(range(4 + s), range(4 + r))
                if not (s == r and c == d)
                and (s, c) != (stream, chain)
                and (r, d) != (stream, chain)
            ]
            np.testing.assert_allclose(found[a, b], np.mean(values), rtol=1e-9)


def test_intervals_contain_the_truth_as_often_as_they_say():
    """Of 300 synthetic measurements: within 5 binomial standard errors of 95 %."""
    inside = np.zeros(2)
    for seed in range(300):
        pair = [
            synthetic("nres", 1, 9, chains=16, seed=2 * seed),
            synthetic("es", 1, 9, chains=16, seed=2 * seed + 1),
        ]
        first, _ = estimates(make_replicates(pair, 1))
        inside += [
            first.signal.low <= 1 <= first.signal.high,
            first.useful.low <= 100 / 9 <= first.useful.high,
        ]
    assert (np.abs(inside / 300 - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 300)).all()
