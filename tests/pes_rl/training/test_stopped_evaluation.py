"""A signal in an evaluation: the resumed run makes it, as if nothing had happened."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from quick_run import QUICK

from pes_rl.assembly.assemble import assemble
from pes_rl.config.train_config import TrainConfig
from pes_rl.run_folder.policy_files import load_policy
from pes_rl.training.trainer import Trainer

TIMED = ("time/time_elapsed", "time/fps", "wall_seconds", "steps_per_second")
CONFIG = TrainConfig(
    env="swimmer",
    agent="pes",
    seed=1,
    sigma=0.1,
    optimizer="sgd",
    learning_rate=0.1,
    normalize_observations=True,
    num_threads=1,
    **QUICK,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    Trainer(CONFIG, folder).run()
    return outcome(folder)


def outcome(folder):
    with (folder / "progress.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    summary = json.loads((folder / "summary.json").read_text())
    for row in (*log, summary):
        for column in TIMED:
            row.pop(column, None)
    policies = [load_policy(folder, which).theta for which in ("best", "last")]
    return log, summary, policies


# The first one, those in mid-run (the third at the last step), and the final one.
@pytest.mark.parametrize("number", range(5))
def test_the_resumed_run_makes_it(tmp_path, whole, number):
    folder = tmp_path / "run"
    assembly = assemble(CONFIG)
    calls = []

    def stopping(evaluate):
        def evaluate_or_stop(*arguments):
            calls.append(arguments)
            if len(calls) == number + 1:  # what the handler of a signal does
                trainer.interrupt("SIGTERM")
                trainer.stop_evaluation()
            return evaluate(*arguments)

        return evaluate_or_stop

    trainer = Trainer(
        CONFIG,
        folder,
        assembly=replace(
            assembly,
            evaluate=stopping(assembly.evaluate),
            evaluate_finally=stopping(assembly.evaluate_finally),
        ),
    )
    result = trainer.run()
    assembly.close()
    assert result.summary["interrupted"]
    assert len(calls) == number + 1
    Trainer(CONFIG, folder, resume="newest").run()
    log, summary, policies = outcome(folder)
    whole_log, whole_summary, whole_policies = whole
    assert log == whole_log
    assert summary == whole_summary
    np.testing.assert_array_equal(policies, whole_policies)
