"""A Ray cluster of several nodes on this machine, some lost during a run."""

# Ray is an extra.
# pyright: reportMissingImports=false

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from pes_rl import Callback  # noqa: E402
from pes_rl.assembly.assemble import assemble  # noqa: E402
from pes_rl.config.train_config import TrainConfig, make_config  # noqa: E402
from pes_rl.training.trainer import Trainer  # noqa: E402

# Ray's own: processes that it leaves to its daemons, and forks.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]

ROOT = Path(__file__).parents[3]
SHORT: dict[str, Any] = {
    "num_pairs": 4,
    "truncation_length": 20,
    "horizon": 100,
    "log_interval": 1,
    "eval_interval": 100_000,
    "eval_episodes": 2,
    "final_eval_episodes": 2,
}
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster(monkeypatch):
    """A head and one more node, with a CPU for one worker each."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    made = start_cluster()
    yield made
    ray.shutdown()
    made.shutdown()
    gc.collect()  # Its warnings are for these tests, which ignore them.


def start_cluster() -> Cluster:
    made = Cluster()
    add_node(made, include_dashboard=False)
    add_node(made)
    return made


def add_node(cluster: Cluster, **options: Any) -> None:
    """Add a node, trying three times: Ray waits 30 s, too few on a busy machine."""
    for attempts_left in (2, 1, 0):
        try:
            cluster.add_node(**NODE, **options)
            return
        except Exception:
            if not attempts_left:
                raise


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


class NodeKiller(Callback):
    """Kills a node early in the run, and adds another when its worker is missing."""

    def __init__(self, cluster: Cluster, pool: Any) -> None:
        self.cluster, self.pool = cluster, pool
        self.rows, self.rows_without, self.rows_after = 0, 0, 0

    def on_log(self, run: Any, row: Any) -> None:
        self.rows += 1
        if self.rows == 4:
            wait_for(lambda: None not in self.pool.pids)
            (node,) = self.cluster.worker_nodes
            node.kill_raylet(check_alive=False)
        elif self.rows > 4 and None in self.pool.pids:
            self.rows_without += 1
            if self.rows_without == 5:
                add_node(self.cluster)
        elif self.rows_without >= 5:
            self.rows_after += 1
            if self.rows_after == 5:
                run.request_stop("enough seen")


class EndAt(Callback):
    """Ends a run after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_log(self, run: Any, row: Any) -> None:
        if run.timesteps >= self.steps:
            run.request_stop("as far as the other")


def settings(env: str, cluster: Cluster | None = None) -> TrainConfig:
    """Settings of a run with far more steps than these tests let it take."""
    where: dict[str, Any] = {}
    if cluster is not None:
        where = {"workers": 2, "ray_address": cluster.address}
    return make_config(env, "pes", total_timesteps=4_000_000, **where, **SHORT)


def theta_without_ray(folder: Path, steps: int) -> np.ndarray:
    result = Trainer(settings("swimmer"), folder, callbacks=[EndAt(steps)]).run()
    assert result.summary["total_timesteps"] == steps
    return result.theta


@pytest.mark.parametrize("env", ["swimmer", "gym:Pendulum-v1"])
def test_a_node_dies_and_another_joins(tmp_path, cluster, caplog, env):
    config = settings(env, cluster)
    parts = assemble(config)
    killer = NodeKiller(cluster, parts.pool)
    run = Trainer(config, tmp_path / "run", assembly=parts, callbacks=[killer])
    result = run.run()
    assert killer.rows_after == 5 and result.summary["ended_by"] == "enough seen"
    # The worker on the node, and any replacement that Ray still started there.
    lost = result.summary["lost_workers"]
    assert lost >= 1
    assert caplog.text.count("another takes over") == lost
    assert np.isfinite(result.theta).all() and result.theta.any()
    if env == "swimmer":
        steps = result.summary["total_timesteps"]
        expected = theta_without_ray(tmp_path / "alone", steps)
        np.testing.assert_array_equal(result.theta, expected)


def test_a_run_whose_head_dies_is_saved_and_resumes_in_another_cluster(
    tmp_path, cluster
):
    folder, address = tmp_path / "run", cluster.address
    config = settings("swimmer", cluster)
    options = {**SHORT, "total_timesteps": config.total_timesteps, "logdir": folder}
    options |= {"workers": 2, "ray_address": address}
    command = [sys.executable, "-m", "pes_rl.train", "--env", "swimmer"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "3,200/4,000,000" in line:
                break
        cluster.head_node.kill_gcs_server(check_alive=False)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, errors
    assert f"error: the head of the Ray cluster, {address}, has not" in errors
    assert "Traceback" not in errors
    assert f"--resume {folder}" in output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["interrupted"] and summary["total_timesteps"] > 3_200

    another, steps = start_cluster(), summary["total_timesteps"] + 16_000
    try:
        run = Trainer(
            settings("swimmer", another), folder, "newest", callbacks=[EndAt(steps)]
        )
        theta = run.run().theta
    finally:
        ray.shutdown()
        another.shutdown()
    expected = theta_without_ray(tmp_path / "alone", steps)
    np.testing.assert_array_equal(theta, expected)
