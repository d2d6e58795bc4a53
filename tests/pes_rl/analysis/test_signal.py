"""`pes_rl.analyze signal`: what is measured is what theory says, and so is the verdict.

Intervals of 95 % are two standard errors; values are within 2.5 of their half widths,
that is 5 standard errors, which chance fails less often than once in 1e5 for each.
"""

import csv
from itertools import product

import jax
import numpy as np
import pytest
from counting import ROLLOUTS
from recurrent import SIGMA, SYSTEMS, THETA, Ending, float32, step_gradients

from pes_rl import analyze
from pes_rl.agents import Policy
from pes_rl.analysis import signal_statistics, signal_to_noise
from pes_rl.analysis.signal_statistics import estimates, make_replicates
from pes_rl.analysis.signal_streams import (
    NRESStream,
    PESStream,
    Setting,
    TruncatedESStream,
)
from pes_rl.analysis.signal_sums import Measured, Sums, measure
from pes_rl.analysis.signal_verdict import decide
from pes_rl.analysis.trained_subject import load_subject
from pes_rl.envs import DeviceRollout
from pes_rl.run_folder.policy_files import save_policy
from pes_rl.run_folder.trained_policy import make_trained
from pes_rl.training import command as train

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


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pendulum"
    options = (
        "--env inverted_pendulum --agent pes --total-timesteps 2000 --horizon 60 "
        "--num-pairs 4 --truncation-length 20 --eval-episodes 2 "
        "--final-eval-episodes 2 --final-sigma 0.2 --observation-mask 0"
    )
    assert train.main([*options.split(), "--logdir", str(folder)]) == 0
    return folder


def test_the_command_measures_a_run(run, capsys):
    options = "--steps 500 --num-chains 4 --truncation-length 20 60 --sigma 3"
    assert analyze.main(["signal", "--run", str(run), *options.split()]) == 0
    rows = read_rows(run / "signal" / "signal.csv")
    agents = [row["agent"] for row in rows]
    assert agents == ["es", *["nres"] * 2, *["pes"] * 10, *["truncated-es"] * 2]
    decays = [row["trace_decay"] for row in rows if row["agent"] == "pes"]
    assert decays == ["0", "0.5", "0.8", "0.9", "1"] * 2
    for row in rows:
        assert float(row["noise"]) > 0
        assert float(row["signal_low"]) <= float(row["signal_high"])
    sentence = (run / "signal" / "signal.txt").read_text()
    assert sentence.startswith("inverted_pendulum, 4 pairs, sigma 3")
    shown = capsys.readouterr().out
    assert sentence.splitlines()[1] in shown
    (own,) = [x for x in shown.splitlines() if "pes K 20 lambda 1 " in x]
    assert "run" in own
    assert (run / "signal" / "signal.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_keeps_what_was_measured(run, tmp_path, monkeypatch, capsys):
    whole = signal_to_noise.measure

    def interrupted(rollout, theta, stream, *arguments):
        yield from whole(rollout, theta, stream, *arguments)
        if stream.settings[0].agent == "nres":
            raise KeyboardInterrupt

    monkeypatch.setattr(signal_to_noise, "measure", interrupted)
    options = "--steps 200 --num-chains 4 --truncation-length 20 --out"
    command = ["signal", "--run", str(run), *options.split(), str(tmp_path)]
    assert analyze.main(command) == 130
    rows = read_rows(tmp_path / "signal.csv")
    assert [row["agent"] for row in rows] == ["es", "nres"]
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("stopped; written so far: ")
    assert str(tmp_path / "signal.csv") in line


def test_a_masked_policy_has_theta_and_sigma_of_its_training(run):
    subject = load_subject(str(run), "last", None)
    assert subject.sigma() == pytest.approx(0.2)  # the run's last one
    assert subject.theta.size == 3  # of four entries three are seen
    assert (np.asarray(subject.theta) != 0).all()


def test_a_policy_file_in_no_run_needs_its_environment(tmp_path, capsys):
    policy = Policy(4, (-3.0,), (3.0,), bias=False)
    trained = make_trained(policy, np.ones(4, np.float32), np.zeros(4), np.ones(4))
    save_policy(tmp_path / "mine.npz", trained)
    command = ["signal", "--run", str(tmp_path / "mine.npz")]
    assert analyze.main(command) == 2
    assert "name its --env too" in capsys.readouterr().err
    subject = load_subject(command[-1], "last", "inverted_pendulum")
    assert subject.folder is None
    np.testing.assert_array_equal(subject.theta, np.ones(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agent", "uoro"], "unknown estimator here 'uoro'"),
        (["--trace-decay", "2"], "trace_decay=2.0 must be between 0 and 1"),
        (["--steps", "0"], "steps=0 must be at least 1"),
        (["--num-chains", "2"], "num_chains=2 must be at least 4"),
        (["--truncation-length", "61"], "longer than the horizon of 60"),
        (
            ["--agent", "truncated-es"],
            "no estimator that is measured gives the gradient",
        ),
        (["--env", "swimmer"], "is for a policy file in no run"),
    ],
)
def test_bad_input_ends_in_one_line(run, options, message, capsys):
    assert analyze.main(["signal", "--run", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
