"""The studies of `pes_rl.analyze`: what is measured is what theory says."""

import csv

import numpy as np
import pytest

from pes_rl import analyze
from pes_rl.agents import AGENTS
from pes_rl.analysis.linear_blocks import LinearBlocks, predicted_variance
from pes_rl.analysis.variance import require_signal, squared_norm, total_variance


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_measured_variance_is_the_predicted_one(tmp_path):
    # A standard error estimated from 2000 heavy-tailed squares is itself uncertain by
    # some 10 %: 5 of them, for six rows, fail by chance less often than once in 1e5.
    command = [
        *("variance", "--env", "linear:independent", "--horizon", "4"),
        *("--env-kwargs", '{"size": 3}', "--num-pairs", "2", "--sigma", "0.1"),
        *("--agent", "pes", "gpes", "nres", "truncated-es", "es", "tbptt"),
        *("--num-particles", "1", "--truncation-lengths", "1", "--noise-period", "2"),
        *("--repeats", "2000", "--logdir", str(tmp_path)),
    ]
    assert analyze.main(command) == 0
    rows = read_rows(tmp_path / "variance.csv")
    assert [row["unrolls"] for row in rows] == ["4", "4", "4", "4", "1", "4"]
    for row in rows:
        measured, error, predicted = (
            float(row[name])
            for name in ("normalized_variance", "standard_error", "predicted")
        )
        assert abs(measured - predicted) <= 5 * error + 1e-9, row["agent"]
    assert (tmp_path / "variance.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("unrolls", [1, 10, 100])
def test_the_prediction_has_the_published_regimes(unrolls):
    # Per pair and parameter: 1 + 1/D with one unroll; equal gradients fall to half,
    # and noise reuse is flat.
    problem = LinearBlocks(100, 100, "identical")
    scale = problem.size * (problem.gradient**2).sum()
    pes = AGENTS["pes"](1, 100 // unrolls, 0.1)
    expected = {1: 1.01, 10: 0.551, 100: 0.5051}[unrolls]
    ratio = predicted_variance(problem, "pes", pes) / scale
    np.testing.assert_allclose(ratio, expected, rtol=1e-5)
    nres = AGENTS["nres"](1, 100 // unrolls, 0.1)
    ratio = predicted_variance(problem, "nres", nres) / scale
    np.testing.assert_allclose(ratio, 1.01, rtol=1e-5)


def test_unbiased_agents_have_no_bias_and_truncated_es_has_one(tmp_path):
    # 5 standard errors of a normal: chance fails it less often than once in 1e6.
    command = [
        *("bias", "--horizon", "20", "--truncation-length", "2", "--num-pairs", "20"),
        *("--agent", "pes", "truncated-es", "--sigma", "0.03", "--repeats", "500"),
        *("--theta", "-1", "-1", "--logdir", str(tmp_path)),
    ]
    assert analyze.main(command) == 0
    pes, truncated = read_rows(tmp_path / "bias.csv")
    assert abs(float(pes["squared_bias"])) <= 5 * float(pes["standard_error"])
    assert float(truncated["squared_bias"]) > 5 * float(truncated["standard_error"])


def test_surface_has_the_known_losses_and_paths(tmp_path):
    command = [
        *("surface", "--points", "11", "--sigma", "1", "--agent", "pes"),
        *(
            "--settings",
            '{"num_pairs": 3, "learning_rate": 0.001}',
        ),
        *("--updates", "2", "--path-points", "2", "--runs", "2"),
        *("--logdir", str(tmp_path)),
    ]
    assert analyze.main(command) == 0
    grid = read_rows(tmp_path / "surface.csv")
    raw, smoothed = (
        np.array([float(row[name]) for row in grid]).reshape(11, 11)
        for name in ("loss", "smoothed_loss")
    )
    # That of the published code at (-4, -4), the first theta.
    assert (grid[12]["first"], grid[12]["second"]) == ("-4", "-4")
    np.testing.assert_allclose(raw[1, 1], 2487.8, rtol=1e-4)
    paths = read_rows(tmp_path / "paths.csv")
    assert [row["update"] for row in paths] == ["0", "1", "2"] * 2
    assert [row["seed"] for row in paths] == ["0"] * 3 + ["1"] * 3
    assert float(paths[0]["first"]) == -4
    lowest, lowest_smoothed, *ends = read_rows(tmp_path / "summary.csv")
    assert float(lowest["loss"]) == raw.min()
    assert float(lowest_smoothed["smoothed_loss"]) == smoothed.min()
    assert [end["what"] for end in ends] == ["pes", "pes"]


ESTIMATES = np.ones((2, 3))


@pytest.mark.parametrize(
    ("arguments", "place", "results", "file", "number"),
    [
        # The first is the reference's.
        ("bias", "bias.episode_estimates", [ESTIMATES, ESTIMATES], "bias.csv", 1),
        ("variance", "variance.episode_estimates", [ESTIMATES], "variance.csv", 1),
        ("cost", "cost.Cost._measure", [(1.0, 2)], "cost.csv", 1),
        (
            "surface --points 11 --sigma 1 --agent pes nres",
            "surface.Surface._path",
            [ESTIMATES],
            "paths.csv",
            2,
        ),
    ],
)
def test_ctrl_c_loses_no_row_that_was_measured(
    arguments, place, results, file, number, tmp_path, monkeypatch, capsys
):
    left = iter(results)

    def measure(*_, **options):
        for result in left:
            return result
        raise KeyboardInterrupt

    monkeypatch.setattr(f"pes_rl.analysis.{place}", measure)
    assert analyze.main([*arguments.split(), "--logdir", str(tmp_path)]) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("stopped; written so far: ")
    assert str(tmp_path / file) in line
    assert len(read_rows(tmp_path / file)) == number


@pytest.mark.slow
def test_cost_grows_as_theory_says(tmp_path):
    # Memory is planned, not timed: the same on every run.
    command = [
        *("cost", "--agent", "pes", "rtrl", "--truncation-length", "2"),
        *("--parameters", "32", "--particles", "8", "--horizon", "8", "--repeats", "1"),
        *("--factors", "1", "4", "--logdir", str(tmp_path)),
    ]
    assert analyze.main(command) == 0
    orders = read_rows(tmp_path / "orders.csv")
    powers = {
        (row["agent"], row["varied"]): float(row["power_of_bytes"]) for row in orders
    }
    assert powers["pes", "unroll"] < 0.2
    assert powers["rtrl", "parameters"] > 1.7 > 1.3 > powers["pes", "parameters"]
    assert len(read_rows(tmp_path / "cost.csv")) == 2 * 3 * 2
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--agent", "pse"], "unknown agent 'pse'; use one of: pes"),
        (["--particles", "3"], "particles=3 even"),
        (["--truncation-length", "64"], "longer than the horizon of 128"),
        (["--factors", "2"], "must be at least two"),
    ],
)
def test_bad_sizes_end_in_one_line(options, message, capsys):
    assert analyze.main(["cost", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_squared_norm_is_freed_of_the_means_own_variance():
    # Over 400 sets of 5 rows of mean (1, 0) and unit variance: z-score below 4.5, which
    # chance passes once in 1e5; the plain squared norm is 2 / 5 too high, 8 of them.
    generator = np.random.default_rng(0)
    sets = generator.standard_normal((400, 5, 2)) + np.array([1.0, 0.0])
    norms = np.array([squared_norm(rows)[0] for rows in sets])
    assert abs(norms.mean() - 1) < 4.5 * norms.std() / 20
    variances = np.array([total_variance(rows)[0] for rows in sets])
    assert abs(variances.mean() - 2) < 4.5 * variances.std() / 20


@pytest.mark.parametrize(
    ("squared", "enough"), [(-3.0, 320), (0.5, 320), (1.0, 320), (1.9, 89)]
)
def test_a_gradient_lost_in_noise_says_how_many_episodes_it_needs(squared, enough):
    require_signal("swimmer", 2.0, 1.0, 20)
    with pytest.raises(ValueError, match=f"--reference-repeats {enough},"):
        require_signal("swimmer", squared, 1.0, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env", "linear:equal"], "unknown linear problem 'equal'"),
        (["--agent", "random-search"], "unknown estimator of gradients"),
        (["--truncation-lengths", "7"], "does not divide the episode of 100 steps"),
        (["--theta", "1", "2"], "theta has 2 numbers"),
        (["--repeats", "1"], "repeats=1 must be at least 2"),
        # Before any is measured.
        (
            ["--env", "swimmer", "--agent", "pes", "uoro", "--repeats", "1000000"],
            "uoro differentiates through the simulation, and this one has no",
        ),
        (["--env-kwargs", '{"colour": 1}'], "whose only options are size and horizon"),
        (["--env-kwargs", "5"], "whose only options are size and horizon"),
    ],
)
def test_bad_input_ends_in_one_line(options, message, capsys, tmp_path):
    assert analyze.main(["variance", *options, "--logdir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
