"""Ten kills of random workers during one run: theta stays the same to the bit."""

import gc
import json
import os
import random
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray")

from pes_rl import Callback  # noqa: E402
from pes_rl.assembly.assemble import assemble  # noqa: E402
from pes_rl.config.train_config import make_config  # noqa: E402
from pes_rl.training.trainer import Trainer  # noqa: E402

# Ray's own: processes that it leaves to its daemons.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]

KILLS = 10
SHORT: dict[str, Any] = {
    "num_pairs": 4,
    "truncation_length": 20,
    "horizon": 100,
    "total_timesteps": 6_400,
    "log_interval": 1,
    "eval_interval": 8_000,
    "eval_episodes": 2,
    "final_eval_episodes": 2,
}


class Killer(Callback):
    """Kills a random worker some time after a row of the log, once all have started."""

    def __init__(self, pool: Any) -> None:
        self.pool, self.draw = pool, random.Random(7)
        self.killed: set[int | None] = set()
        self.timers: list[threading.Timer] = []

    def on_log(self, run: Any, row: Any) -> None:
        while None in self.pool.pids:
            time.sleep(0.1)
        # The pool notices a killed worker only in the next update.
        if len(self.killed) == KILLS or self.killed.intersection(self.pool.pids):
            return
        pid = self.draw.choice(self.pool.pids)
        self.killed.add(pid)
        # Up to about one update later: during an update, or between two.
        timer = threading.Timer(
            self.draw.uniform(0, 0.05), os.kill, (pid, signal.SIGKILL)
        )
        self.timers.append(timer)
        timer.start()


def train(folder: Any, workers: int) -> tuple[np.ndarray, Killer | None]:
    config = make_config("swimmer", "pes", workers=workers, **SHORT)
    parts, killer = assemble(config), None
    if workers:
        killer = Killer(parts.learner._rollout.pool)  # type: ignore[attr-defined]
    callbacks = [] if killer is None else [killer]
    result = Trainer(config, folder, assembly=parts, callbacks=callbacks).run()
    return result.theta, killer


def test_ten_kills_are_logged_and_change_nothing(tmp_path, caplog):
    try:
        theta, killer = train(tmp_path / "killed", 2)
    finally:
        ray.shutdown()
        gc.collect()  # Its warnings are for this test, which ignores them.
    assert killer is not None and len(killer.killed) == KILLS
    assert caplog.text.count("another takes over") == KILLS
    summary = json.loads((tmp_path / "killed" / "summary.json").read_text())
    assert summary["lost_workers"] == KILLS
    assert summary["ended_by"] == "the budget"
    alone, _ = train(tmp_path / "alone", 0)
    np.testing.assert_array_equal(theta, alone)
