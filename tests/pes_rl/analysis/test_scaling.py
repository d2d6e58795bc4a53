"""What large policies and many workers cost: `pes_rl.analyze memory` and `scaling`."""

import csv
import gc
import re
import sys

import numpy as np
import pytest

from pes_rl import analyze
from pes_rl.analysis import memory, memory_case
from pes_rl.analysis.scaling_model import BANDWIDTH, Model, predict

TRUE = Model(driver=2e-3, particle=1e-5, message=5e-4, step=2e-5)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def updates():
    """Updates as the model has them, on two cores."""
    made = []
    for workers in (0, 1, 2, 4):
        for particles in (32, 64):
            for unroll in (10, 100):
                own = (1, particles, workers, particles * unroll / min(workers or 1, 2))
                seconds = np.dot(
                    own, (TRUE.driver, TRUE.particle, TRUE.message, TRUE.step)
                )
                made.append(
                    {
                        "env": "swimmer",
                        "workers": workers,
                        "particles": particles,
                        "unroll": unroll,
                        "seconds": seconds if workers else 1.0,
                        "bytes_out": 1000,
                        "bytes_back": 500,
                    }
                )
    return made


def test_the_model_finds_the_times_that_updates_are_made_of():
    model = Model.fit(updates(), cores=2)
    np.testing.assert_allclose(
        [model.driver, model.particle, model.message, model.step],
        [TRUE.driver, TRUE.particle, TRUE.message, TRUE.step],
        rtol=1e-6,
    )
    assert model.error(updates(), cores=2) < 1e-6


def test_predictions_are_the_model_s():
    found = {
        (row["kind"], row["workers"]): row for row in predict(TRUE, updates(), 100)
    }
    # One of two workers had 32 particles and 750 bytes.
    seconds = 2e-3 + 1e-5 * 320 + 10 * (5e-4 + 750 / BANDWIDTH) + 2e-5 * 32 * 100
    assert found["weak", 10]["seconds"] == pytest.approx(seconds)
    assert found["weak", 10]["particles"] == 320
    alone = 2e-3 + 1e-5 * 320 + 5e-4 + 7500 / BANDWIDTH + 2e-5 * 320 * 100
    assert found["weak", 10]["efficiency"] == pytest.approx(alone / seconds / 10)
    for kind in ("weak", "strong"):
        assert found[kind, 1]["efficiency"] == 1
        assert found[kind, 1000]["efficiency"] < found[kind, 10]["efficiency"]
    assert found["strong", 1000]["particles"] == 6400


def test_memory_of_chunks_is_planned_and_kept_without_the_population(
    tmp_path, monkeypatch
):
    # In this process, whose peak is that of all tests before.
    monkeypatch.setattr(memory, "_in_a_process", memory_case.work)
    sizes = (
        "--parameters 20000 --num-pairs 16 --truncation-length 2 --horizon 4 --rounds 1"
    )
    command = ["memory", "--agent", "pes", *sizes.split(), "--logdir", str(tmp_path)]
    assert analyze.main(command) == 0
    found = {
        (row["env"], int(row["pairs_at_once"])): row
        for row in rows(tmp_path / "memory.csv")
    }
    assert len(found) == 4
    # 136 units twice, of 8 observations and for 2 actions, in a network without biases.
    for env, size in (("number", 20_000), ("swimmer", 136 * (8 + 136 + 2))):
        whole, chunked = found[env, 16], found[env, 1]
        population = 4 * 32 * size
        assert int(whole["population_bytes"]) == population < int(whole["kept_bytes"])
        assert int(chunked["kept_bytes"]) < 20_000
        assert float(chunked["cpu_seconds"]) > 0 < float(whole["seconds"])
    planned = [int(found["number", n]["planned_bytes"]) for n in (1, 16)]
    assert planned[0] < 4 * 32 * 20_000 / 2 < planned[1] / 4
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_what_memory_has_measured_is_kept_when_it_is_stopped(
    tmp_path, monkeypatch, capsys
):
    row = {"parameters": 10, "particles": 4, "population_bytes": 160, "peak_bytes": 640}

    def measure(cases, rounds):
        assert rounds == 2
        if cases[0].env == "swimmer":
            raise KeyboardInterrupt
        return [
            {"env": case.env, "agent": case.agent, **row, "pairs_at_once": pairs}
            for case in cases
            if (pairs := case.pairs_per_chunk)
        ]

    monkeypatch.setattr(memory, "_in_a_process", measure)
    command = ["memory", "--num-pairs", "2", "--logdir", str(tmp_path)]
    assert analyze.main([*command, "--agent", "pes", "es"]) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    path, figure = tmp_path / "memory.csv", tmp_path / "memory.png"
    assert line == f"stopped; written so far: {path}, {figure}"
    assert [row["agent"] for row in rows(path)] == ["pes", "pes", "es", "es"]
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # starts two processes
def test_a_process_of_its_own_measures_by_how_much_memory_peaks(tmp_path):
    sizes = "--agent es --parameters 100000 --num-pairs 8 --rounds 1"
    assert analyze.main(["memory", *sizes.split(), "--logdir", str(tmp_path)]) == 0
    peaks = {
        (row["env"], row["pairs_at_once"]): float(row["peak_bytes"])
        / float(row["population_bytes"])
        for row in rows(tmp_path / "memory.csv")
    }
    assert len(peaks) == 4
    for env in ("number", "swimmer"):
        assert 3 < peaks[env, "8"] < 9
        assert peaks[env, "1"] < peaks[env, "8"] / 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("memory --agent gpes", "unknown agent in chunks 'gpes'"),
        ("memory --env swimer", "unknown environment 'swimer'"),
        ("memory --env gym:Pendulum-v1", "Pendulum-v1 cannot be copied"),
        ("memory --parameters 10", "parameters=10 are too few .* use 11 or more"),
        ("memory --truncation-length 9", "longer than the horizon of 8"),
        ("memory --rounds 0", "rounds=0 must be at least 1"),
        ("scaling", r"scaling needs Ray: pip install 'pes-rl\[ray\]'"),
    ],
)
def test_what_cannot_be_is_refused(command, message, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "pes_rl.envs.ray.cluster", raising=False)
    assert analyze.main(command.split()) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_scaling_of_real_workers(tmp_path):
    ray = pytest.importorskip("ray")
    sizes = "--env swimmer --num-pairs 4 8 --truncation-length 5 20 --rounds 2"
    try:
        assert analyze.main(["scaling", *sizes.split(), "--logdir", str(tmp_path)]) == 0
    finally:
        ray.shutdown()
        gc.collect()
    found = rows(tmp_path / "measured.csv")
    assert len(found) == 4 * 4 + 2
    of_two = [row for row in found if row["workers"] == "2"]
    assert all(0 < int(row["bytes_back"]) < 20_000 for row in of_two)
    assert len(rows(tmp_path / "predicted.csv")) == 20
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
