"""What large policies and many workers cost: `pes_rl.analyze memory` and `scaling`."""

import csv
import gc
import sys

import numpy as np
import pytest

from pes_rl import analyze
from pes_rl.analysis import memory
from pes_rl.analysis.memory import Case
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
    monkeypatch.setattr(memory, "_in_a_process", Case.measure)
    command = ["memory", "--agents", "pes", "--parameters", "1000", "20000"]
    sizes = ["--num-pairs", "16", "--out", str(tmp_path)]
    assert analyze.main([*command, *sizes]) == 0
    found = {
        (int(row["parameters"]), int(row["pairs_at_once"])): row
        for row in rows(tmp_path / "memory.csv")
    }
    assert set(found) == {(d, n) for d in (1000, 20_000) for n in (1, 16)}
    whole, chunked = found[20_000, 16], found[20_000, 1]
    population = 4 * 32 * 20_000
    assert int(whole["population_bytes"]) == population
    assert int(whole["kept_bytes"]) > population > int(whole["planned_bytes"]) / 20
    assert int(chunked["kept_bytes"]) < 4000
    assert int(chunked["planned_bytes"]) < population / 2
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("memory --agents gpes", "unknown agent in chunks 'gpes'"),
        ("scaling", r"scaling needs Ray: pip install 'pes-rl\[ray\]'"),
    ],
)
def test_what_cannot_be_is_refused(command, message, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "pes_rl.envs.ray_cluster", raising=False)
    assert analyze.main(command.split()) == 2
    assert message.replace("\\", "") in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_scaling_of_real_workers(tmp_path):
    ray = pytest.importorskip("ray")
    sizes = "--env swimmer --num-pairs 4 8 --unroll 5 20 --rounds 2"
    try:
        assert analyze.main(["scaling", *sizes.split(), "--out", str(tmp_path)]) == 0
    finally:
        ray.shutdown()
        gc.collect()
    found = rows(tmp_path / "measured.csv")
    assert len(found) == 4 * 4 + 2
    of_two = [row for row in found if row["workers"] == "2"]
    assert all(0 < int(row["bytes_back"]) < 20_000 for row in of_two)
    assert len(rows(tmp_path / "predicted.csv")) == 20
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
