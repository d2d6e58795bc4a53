"""A run whose engine is lost: a clear line, a whole folder, and a way on."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pes_rl
from pes_rl.envs import EngineLost, HostRollout
from pes_rl.envs.gymnasium.results import BrokenEnvironment
from pes_rl.envs.rollout.base import Thetas
from pes_rl.learner.learner import Learner
from pes_rl.run_folder.policy_files import (
    load_policy,
)
from pes_rl.studies import runner
from pes_rl.training import command as train
from pes_rl.training.recorder import Result

RUN = (
    "--env swimmer --num-pairs 2 --truncation-length 10 --horizon 40 "
    "--total-timesteps 480 --eval-episodes 2 --final-eval-episodes 3 "
    "--eval-interval 160 --log-interval 4 --checkpoint-interval 1000"
)
OPTIONS: dict[str, Any] = {
    "num_pairs": 2,
    "truncation_length": 10,
    "horizon": 40,
    "eval_episodes": 2,
}


def test_it_is_whole_up_to_the_last_update_and_goes_on(tmp_path, capsys, monkeypatch):
    assert train.main([*RUN.split(), "--logdir", str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    unroll, unrolls = HostRollout.unroll, 0

    def lost_in_the_seventh(self, particles, thetas, *rest, **options):
        nonlocal unrolls
        unrolls += isinstance(thetas, Thetas)  # as training's are
        if unrolls > 6:
            raise EngineLost("five workers were lost")
        return unroll(self, particles, thetas, *rest, **options)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(HostRollout, "unroll", lost_in_the_seventh)
        assert train.main([*RUN.split(), "--logdir", str(folder)]) == 1
    shown = capsys.readouterr()
    assert shown.err == "error: five workers were lost\n"
    assert f"stopped; continue with --resume {folder}" in shown.out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["interrupted"] and summary["ended_by"] == "lost workers"
    assert summary["total_timesteps"] == 6 * 40
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["240"]
    assert train.main(["--resume", str(folder)]) == 0
    expected = load_policy(tmp_path / "whole", "last").theta
    np.testing.assert_array_equal(load_policy(folder, "last").theta, expected)


def test_an_environment_that_breaks_costs_no_update_before(tmp_path, monkeypatch):
    """Nor does training step on with what is left of the update in which it broke."""
    unroll, unrolls = HostRollout.unroll, 0

    def broken_in_the_seventh(self, particles, thetas, *rest, **options):
        nonlocal unrolls
        unrolls += isinstance(thetas, Thetas)
        if unrolls == 7 and isinstance(thetas, Thetas):
            raise BrokenEnvironment("step 3 raised an error")
        return unroll(self, particles, thetas, *rest, **options)

    monkeypatch.setattr(HostRollout, "unroll", broken_in_the_seventh)
    options = {**OPTIONS, "log_interval": 4, "total_timesteps": 480}
    with pytest.warns(RuntimeWarning, match="step 3 raised an error"):
        result = pes_rl.train("swimmer", "pes", logdir=tmp_path / "run", **options)
    assert result.summary["total_timesteps"] == 6 * 40
    assert result.summary["ended_by"] == "the environment"


def test_from_python_the_reason_is_a_warning(tmp_path, monkeypatch):
    def lost(*arguments, **options):
        raise EngineLost("five workers were lost")

    monkeypatch.setattr(Learner, "run", lost)
    with pytest.warns(RuntimeWarning, match="five workers were lost"):
        result = pes_rl.train("swimmer", logdir=tmp_path / "run", **OPTIONS)
    assert result.summary["interrupted"]
    assert result.summary["total_timesteps"] == 0


@pytest.mark.parametrize("final", [None, 3.0])
def test_a_run_that_could_not_go_on_is_no_result_of_a_study(tmp_path, final):
    trainer = SimpleNamespace(failure="five workers were lost" if final else None)
    result = Result(tmp_path, {"final_return": final}, None)
    message = trainer.failure or "no evaluation succeeded"
    with pytest.raises(ValueError, match=message):
        runner.final_return(trainer, result)  # type: ignore[arg-type]


def test_an_engine_that_is_lost_at_once_is_one_line(tmp_path, capsys, monkeypatch):
    def lost(*arguments, **options):
        raise EngineLost("ten workers were lost")

    monkeypatch.setattr(HostRollout, "reset", lost)
    assert train.main([*RUN.split(), "--logdir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "error: ten workers were lost\n"
