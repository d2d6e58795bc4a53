"""The command `python -m pes_rl.bench`: what it measures and writes, not how fast."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from mujoco.batch import Batch

from pes_rl import bench
from pes_rl.assembly.factories import make_policy, make_rollout
from pes_rl.benchmarks import engines as bench_engines
from pes_rl.config.train_config import make_config
from pes_rl.envs import make

QUICK = ["--seconds", "0.001", "--rounds", "1", "--num-particles", "2"]


def measure(path: Path, *arguments: str) -> list[dict[str, Any]]:
    assert bench.main([*QUICK, *arguments, "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_a_native_task_is_measured_against_its_peers(tmp_path, capsys) -> None:
    path = tmp_path / "rows.json"
    rows = measure(path, "--env", "swimmer", "--num-threads", "2")
    keys = ["engine", "env", "particles", "threads", "steps_per_second"]
    assert all(list(row) == [*keys, "compile_seconds", "steps"] for row in rows)
    engines = [row["engine"] for row in rows if row["engine"] != "envpool"]
    assert engines == [
        "pes_rl",
        "mujoco.batch open loop",
        "mujoco.batch as it comes",
        "gymnasium sync",
        "gymnasium async",
    ]
    assert all(row["env"] == "swimmer" and row["particles"] == 2 for row in rows)
    assert all(row["steps_per_second"] > 0 for row in rows)
    table = capsys.readouterr().out
    assert all(engine in table for engine in engines)
    assert "1.00 times" in table


def test_several_native_tasks_share_a_table(tmp_path, capsys) -> None:
    arguments = ["--num-threads", "1", "--env", "swimmer", "reacher", "--no-peers"]
    rows = measure(tmp_path / "rows.json", *arguments)
    assert [row["env"] for row in rows] == ["swimmer"] * 3 + ["reacher"] * 3
    table = capsys.readouterr().out
    for task in ("swimmer", "reacher"):
        (line,) = re.findall(rf"^\| {task} .*", table, re.MULTILINE)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert float(cells[1]) < 1e-9
        assert float(cells[3]) > 0
        assert cells[4:] == ["-", "-"]


def test_a_closed_form_is_measured_against_its_physics_in_a_scan(tmp_path) -> None:
    rows = measure(tmp_path / "rows.json", "--env", "jax:swimmer", "--no-peers")
    assert [row["engine"] for row in rows] == ["pes_rl", "bare physics scan"]
    assert all(row["threads"] is None for row in rows)


@pytest.mark.filterwarnings("default")  # of the packages that Brax imports
def test_sizes_are_drawn_and_written_as_they_are_measured(
    tmp_path, monkeypatch, capsys
) -> None:
    measure_engines, seen = bench._measure, []

    def measure_and_look(engines: Any, config: Any) -> Any:
        written = (tmp_path / "rows.json").read_text() or "[]"
        seen.append([row["particles"] for row in json.loads(written)])
        return measure_engines(engines, config)

    monkeypatch.setattr(bench, "_measure", measure_and_look)
    sizes = ["--num-particles", "2", "4", "--figure", str(tmp_path / "speeds.png")]
    rows = measure(tmp_path / "rows.json", "--env", "brax:fast", *sizes)
    engines = ["pes_rl", "bare physics scan"]
    expected = [(engine, n) for n in (2, 4) for engine in engines]
    assert [(row["engine"], row["particles"]) for row in rows] == expected
    assert seen == [[], [2, 2]]
    assert all(row["threads"] is None for row in rows)
    assert (tmp_path / "speeds.png").read_bytes().startswith(b"\x89PNG")
    assert "Gymnasium" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the packages that Brax imports
def test_a_closed_form_is_measured_against_the_same_task_elsewhere(tmp_path) -> None:
    with jax.numpy_rank_promotion("allow"):  # MJX relies on it
        rows = measure(tmp_path / "rows.json", "--env", "jax:swimmer")
    assert [(row["engine"], row["env"]) for row in rows] == [
        ("pes_rl", "jax:swimmer"),
        ("bare physics scan", "jax:swimmer"),
        ("pes_rl on native MuJoCo", "swimmer"),
        ("pes_rl on Brax", "brax:swimmer"),
        ("MJX physics scan", "jax:swimmer"),
    ]
    assert all(row["compile_seconds"] > 0 for row in rows if row["threads"] is None)


def test_an_unrolled_problem_is_measured_against_its_bare_unroll(tmp_path) -> None:
    rows = measure(tmp_path / "rows.json", "--env", "unrolled:toy-regression")
    engines = [row["engine"] for row in rows]
    assert engines == ["pes_rl", "pes_rl unrolls", "PES by hand", "bare unrolls"]
    # 100 updates, as between two rows of a run's log, of 10 steps.
    assert all(row["steps_per_second"] > 0 and row["steps"] == 1000 for row in rows)


def test_an_unrolled_problem_is_measured_with_its_options(tmp_path, capsys) -> None:
    options = '{"hidden_sizes": [2], "batch_size": 4, "horizon": 15}'
    arguments = ["--env", "unrolled:lr-schedule", "--env-kwargs", options]
    rows = measure(tmp_path / "rows.json", *arguments)
    # K = 10 does not divide that T, so PES by hand, which needs it, is left out.
    engines = ["pes_rl", "pes_rl unrolls", "bare unrolls"]
    assert [row["engine"] for row in rows] == engines
    assert bench.main(["--env", "swimmer", "--env-kwargs", options]) != 0
    assert "has no meaning for swimmer" in capsys.readouterr().err


@pytest.mark.parametrize("tuned", [True, False])
def test_the_open_loop_steps_the_trajectories_of_the_closed_loop(
    tuned, monkeypatch
) -> None:
    batches = []

    def make_batch(*arguments, **keywords) -> Batch:
        batches.append(Batch(*arguments, **keywords))
        return batches[-1]

    monkeypatch.setattr(bench_engines, "Batch", make_batch)
    config, environment = make_config("swimmer", "pes"), make("swimmer")
    policy = make_policy(config, environment)
    rollout = make_rollout(config, environment, policy)
    particles = rollout.reset(jax.random.key(0), 4, stagger=True)
    thetas = 0.1 * jax.random.normal(jax.random.key(1), (8, policy.num_parameters))
    bench_engines.open_loop(rollout, particles, thetas, threads=2, tuned=tuned)()
    after, segment = rollout.unroll(particles, thetas, bench_engines.STEPS)
    assert not segment.ended.any()
    np.testing.assert_array_equal(batches[0].state, after.state.simulation[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "swimer"], "unknown environment 'swimer'; use one of: swimmer"),
        (["--num-particles", "3"], "num_particles=3 is not even; use 64"),
        (["--num-threads", "-1"], "num_threads=-1"),
        (["--backend", "spring"], "backend='spring' is for Brax"),
        (["--seconds", "0"], "seconds=0.0 must be above 0"),
        (["--json", "/no/such/folder/rows.json"], "/no/such/folder/rows.json"),
        (["--figure", "speeds.png"], "figure is of several num_particles"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_runs(
    arguments, message, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(bench, "_measure", lambda *_: pytest.fail("measured"))
    assert bench.main([*QUICK, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert error.count("\n") == 1
