"""A signal in an evaluation: the resumed run makes it, as if nothing had happened."""

import gc
from dataclasses import replace

import pytest
from quick_run import QUICK
from run_outcome import outcome

from pes_rl.assembly.assemble import assemble
from pes_rl.config.train_config import TrainConfig
from pes_rl.training.trainer import Trainer

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


def stopped_at(folder, number):
    """A run that a signal stops in its evaluation of this number."""
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


# The first one, those in mid-run (the third at the last step), and the final one.
@pytest.mark.parametrize("number", range(5))
def test_the_resumed_run_makes_it(tmp_path, whole, number):
    folder = tmp_path / "run"
    stopped_at(folder, number)
    Trainer(CONFIG, folder, resume="newest").run()
    assert outcome(folder) == whole


def test_a_kill_while_it_is_made_loses_nothing_of_its_row(tmp_path, whole):
    """The row is complete on disk until the one with the evaluation replaces it."""
    folder = tmp_path / "run"
    stopped_at(folder, 2)
    before = (folder / "progress.csv").read_bytes()
    trainer = Trainer(CONFIG, folder, resume="newest")
    next(trainer.steps())
    assert (folder / "progress.csv").read_bytes() == before
    del trainer
    gc.collect()
    Trainer(CONFIG, folder, resume="newest").run()
    assert outcome(folder) == whole
