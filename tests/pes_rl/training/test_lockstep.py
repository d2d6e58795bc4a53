"""Runs in lock-step: what each gives, and that it is what it gives alone."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimator_table import ESTIMATORS, make_rollout, theta_of

from pes_rl import compare
from pes_rl.learner.evaluation import make_evaluator
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig
from pes_rl.run_folder.policy_files import (
    load_policy,
)
from pes_rl.studies import runner
from pes_rl.studies.study import read_study
from pes_rl.training.lockstep import run_alone, run_together

IN_DEFAULT = ("pes, at once", "es", "truncated-es")
"""Every loop of the engine."""


def double(x, *, times):
    return 2.0**times * x


def halve_on_the_host(x):
    return float(x) / 2


def refuse(x):
    raise RuntimeError(f"no {len(x)}")


def count(start, rounds):
    """Doubles and halves, as many rounds as it is told; a refusal in between."""
    x = jnp.float32(start)
    for _ in range(rounds):
        x = yield partial(double, x, times=2)
        x = yield partial(halve_on_the_host, x)
    try:
        yield partial(refuse, "all")
    except RuntimeError as error:
        return float(x), str(error)


def test_runs_that_end_apart_each_give_their_own():
    ends = [(float(start), rounds) for start, rounds in ((1, 3), (2, 1), (3, 2))]
    expected = [(start * 2**rounds, "no 3") for start, rounds in ends]
    assert [run_alone(count(*end)) for end in ends] == expected
    assert run_together([count(*end) for end in ends], {double}) == expected


def test_an_error_that_a_run_does_not_catch_ends_all():
    def careless():
        yield partial(refuse, "all")

    closed = []

    def waiting():
        try:
            for _ in range(9):
                yield partial(double, jnp.float32(1), times=1)
        finally:
            closed.append(True)

    with pytest.raises(RuntimeError, match="no 3"):
        run_together([waiting(), careless(), waiting()], {double})
    assert closed == [True, True]


def train(learner, evaluate, theta, seed, rounds):
    """Rounds of two updates and an evaluation."""
    state = learner.init(theta, jax.random.key(seed))
    history = []
    for number in range(rounds):
        state, reports = yield partial(learner.run, state, num_updates=2)
        key = jax.random.key(number)
        evaluation = yield partial(evaluate, state.theta, None, key)
        history.append((state, reports, evaluation))
    return history


@pytest.mark.parametrize(
    "name",
    [
        name if name in IN_DEFAULT else pytest.param(name, marks=pytest.mark.slow)
        for name in ESTIMATORS
    ],
)
def test_a_run_in_lock_step_is_the_run_alone(name):
    """Episodes end early, at other steps in each run; one run ends before the others.

    What is counted is equal, and what is summed over particles is so but for rounding.
    """
    rollout = make_rollout("device", name)
    learner = Learner(rollout, ESTIMATORS[name], OptimizerConfig("sgd", 0.01), 10_000)
    evaluate = make_evaluator(rollout, 3)
    ends = [(1, 2), (2, 3), (3, 3)]
    runs = [train(learner, evaluate, theta_of(name), *end) for end in ends]
    together = run_together(runs, {learner.run, evaluate})
    for end, history in zip(ends, together, strict=True):
        alone = run_alone(train(learner, evaluate, theta_of(name), *end))
        assert len(history) == end[1]
        for got, expected in zip(
            jax.tree.leaves(history), jax.tree.leaves(alone), strict=True
        ):
            if jnp.issubdtype(expected.dtype, jnp.floating):
                np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)
            else:
                np.testing.assert_array_equal(got, expected)


STUDY = """
env = "jax:swimmer"
agent = "nres"
total_timesteps = 480
horizon = 40
num_pairs = 2
truncation_length = 10
eval_interval = 80
eval_episodes = 2
final_eval_episodes = 2
log_interval = 1
checkpoint_interval = 240
stop_at_threshold = true
threshold = 11.0

[[arm]]
name = "alone"
seeds = "0-2"

[[arm]]
name = "together"
seeds = "0-2"
vmap_seeds = true
"""


def read(folder):
    with (folder / "progress.csv").open() as file:
        log = list(csv.DictReader(file))
    summary = json.loads((folder / "summary.json").read_text())
    return log, summary


def test_seeds_of_a_study_leave_in_lock_step_what_they_leave_alone(
    tmp_path, monkeypatch, capsys
):
    """Each to its own end: seeds reach the threshold at different times, or never."""
    # In this process, which compiles once.
    monkeypatch.setattr(runner, "worker_pool", ThreadPoolExecutor)
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    runs = tmp_path / "runs"
    runner.run_study(read_study(study), runs, 1)
    assert "6/6 runs" in capsys.readouterr().out
    lengths = []
    for seed in range(3):
        alone, together = (runs / f"{arm}-s{seed}" for arm in ("alone", "together"))
        log, summary = read(together)
        expected_log, expected = read(alone)
        lengths.append(len(log))
        for row, expected_row in zip(log, expected_log, strict=True):
            for name in row:
                if name in ("time/time_elapsed", "time/fps"):
                    continue
                pair = [float(r[name] or "nan") for r in (row, expected_row)]
                assert pair[0] == pytest.approx(pair[1], rel=1e-3, nan_ok=True), name
        for name in ("ended_by", "total_timesteps", "timesteps_to_threshold"):
            assert summary[name] == expected[name]
        for which in ("best", "last"):
            np.testing.assert_allclose(
                load_policy(together, which).theta,
                load_policy(alone, which).theta,
                rtol=1e-3,
                atol=1e-4,
            )
        files = {path.relative_to(together) for path in together.glob("[!e]*/*")}
        assert files == {path.relative_to(alone) for path in alone.glob("[!e]*/*")}
        config = json.loads((together / "config.json").read_text())
        assert config["vectorization"] == "seeds 0, 1, 2 in lock-step"
        assert f"seed {seed}  0/480 steps" in (together / "output.txt").read_text()
    assert len(set(lengths)) > 1

    cut_off = runs / "together-s1" / "summary.json"
    content = json.loads(cut_off.read_text())
    cut_off.write_text(json.dumps({**content, "interrupted": True}))
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/summary.json")}
    runner.run_study(read_study(study), runs, 1)
    made = [path for path, when in before.items() if path.stat().st_mtime_ns != when]
    assert made == [cut_off]
    assert len(read(cut_off.parent)[0]) == lengths[1]


def test_lock_step_is_refused_where_nothing_can_be_vmapped(tmp_path, capsys):
    study = tmp_path / "study.toml"
    study.write_text(STUDY.replace('"jax:swimmer"', '"swimmer"'))
    assert compare.main([str(study)]) == 2
    assert "vmap_seeds is for environments written in JAX" in capsys.readouterr().err


def test_seeds_in_lock_step_are_divided_among_the_processes(tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    groups = runner._in_groups(list(read_study(study).runs), 2)
    seeds = [[run.config.seed for run in group] for group in groups]
    assert seeds == [[0], [1], [2], [0, 1], [2]]
