"""Workers of a real local Ray that die or hang: the results stay the same."""

# Ray is an extra.
# pyright: reportMissingImports=false

import gc
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ray = pytest.importorskip("ray")

from ray.exceptions import ObjectLostError  # noqa: E402
from worker_pools import LocalWorkerPool, counting_worker  # noqa: E402

from pes_rl.agents import PES  # noqa: E402
from pes_rl.assembly.assemble import assemble  # noqa: E402
from pes_rl.config.train_config import make_config  # noqa: E402
from pes_rl.envs import EngineLost  # noqa: E402
from pes_rl.envs.ray import cluster as ray_cluster, pool as ray_pool  # noqa: E402
from pes_rl.envs.ray.cluster import connect  # noqa: E402
from pes_rl.envs.ray.pool import RayWorkerPool  # noqa: E402
from pes_rl.envs.ray.rollout import RayRollout  # noqa: E402

# Ray's own: processes that it leaves to its daemons.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

SWIMMER: dict[str, Any] = {"num_pairs": 4, "truncation_length": 20, "horizon": 50}


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    with pytest.MonkeyPatch.context() as patch:
        # Workers import what they hold from here.
        patch.setenv(
            "PYTHONPATH", str(Path(__file__).parents[2] / "helpers"), prepend=os.pathsep
        )
        connect(None, num_cpus=4)
    yield
    ray.shutdown()
    gc.collect()  # Its warnings are for these tests, which ignore them.


@pytest.fixture(scope="module")
def pool():
    """Two workers that hold counting environments whose states cannot be copied."""
    return RayWorkerPool(partial(counting_worker, False), 2, 1, timeout=60)


def await_all(pool: RayWorkerPool) -> None:
    ray.wait([handle.pid for handle in pool.handles], num_returns=len(pool))


def test_a_local_ray_listens_on_this_machine_alone(pool):
    psutil = pytest.importorskip("psutil")
    await_all(pool)
    here = psutil.Process()
    listening = {
        (process.name(), connection.laddr.ip)
        for process in [here, *here.children(recursive=True)]
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    # The last is 127.0.0.1 on a socket of IPv6.
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def estimates(pool: Any, disturb: Any = None) -> Any:
    """Gradients of three updates, `disturb()` before the last of them."""
    if isinstance(pool, RayWorkerPool):
        await_all(pool)
    rollout = RayRollout(pool, 20, can_copy=False)
    estimator, theta = PES(4, 2, 0.5), jnp.array([0.3, -0.2])
    state, results = estimator.init(rollout, theta, jax.random.key(0)), []
    for update in range(3):
        if update == 2 and disturb is not None:
            disturb()
        key = jax.random.key(update)
        gradient, state, report = estimator.estimate(rollout, theta, state, key)
        results.append((gradient, report))
    return results


def test_a_large_value_is_shared_by_reference_and_a_small_one_is_sent(pool):
    small = np.zeros(ray_pool.SMALL_BYTES // 4 - 2, np.float32), 0.1
    assert pool.share(small) is small
    reference = pool.share((*small, 0.1))
    np.testing.assert_array_equal(ray.get(reference)[0], small[0])


def test_ray_workers_give_the_same_results_as_local_ones(pool):
    expected = estimates(LocalWorkerPool(partial(counting_worker, False), 2))
    jax.tree.map(np.testing.assert_array_equal, estimates(pool), expected)


def test_a_worker_killed_during_an_unroll_loses_only_its_own_particles(pool, caplog):
    def kill() -> None:
        # It is stopped when its call arrives, and killed before it answers.
        os.kill(pool.pids[1], signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (pool.pids[1], signal.SIGKILL)).start()

    local = LocalWorkerPool(partial(counting_worker, False), 2)
    expected = estimates(local, lambda: local.dying.add(1))
    before = pool.lost
    jax.tree.map(np.testing.assert_array_equal, estimates(pool, kill), expected)
    assert pool.lost == before + 1
    assert "worker 1 of 2 died; another takes over" in caplog.text


def test_a_hanging_worker_is_replaced_after_the_timeout(pool, caplog):
    pool.timeout, timeout = 3.0, pool.timeout
    local = LocalWorkerPool(partial(counting_worker, False), 2)
    expected = estimates(local, lambda: local.dying.add(0))
    results = estimates(pool, lambda: os.kill(pool.pids[0], signal.SIGSTOP))
    pool.timeout = timeout
    jax.tree.map(np.testing.assert_array_equal, results, expected)
    assert "worker 0 of 2 has not answered for 3 s" in caplog.text


def test_a_lost_head_makes_the_pool_give_up(monkeypatch):
    monkeypatch.setattr(ray_cluster, "SILENT_SECONDS", 0.0)
    pool = RayWorkerPool(Member, 1, 0, timeout=60)
    assert pool.work([("where", ())]) == pool.pids
    pool._cluster.address, pool._cluster._next = "127.0.0.1:1", 0.0
    for _ in range(2):
        with pytest.raises(EngineLost, match=r"has not answered \(.*\) for 0 s"):
            pool.work([("where", ())])


def test_a_cluster_without_a_living_node_makes_the_pool_give_up(monkeypatch):
    """Ray itself would wait for ever: its head answers."""
    monkeypatch.setattr(ray_cluster, "SILENT_SECONDS", 0.5)
    pool = RayWorkerPool(Member, 1, 0, timeout=60)
    assert pool.work([("where", ())]) == pool.pids
    nodes = [{**node, "Alive": False} for node in ray.nodes()]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    pool._cluster._next = 0.0
    os.kill(pool.pids[0] or 0, signal.SIGSTOP)  # Its answer would come first.
    with pytest.raises(EngineLost, match=r"no node .* has been alive for 0 s"):
        pool.work([("where", ())])


def test_a_signal_ends_a_wait_for_an_answer(monkeypatch):
    monkeypatch.setattr(ray_pool, "GRACE_SECONDS", 1.0)
    pool = RayWorkerPool(Member, 1, 0, timeout=60)
    assert pool.work([("where", ())]) == pool.pids
    os.kill(pool.pids[0] or 0, signal.SIGSTOP)
    threading.Timer(0.5, pool.interrupt).start()
    start = time.monotonic()
    with pytest.raises(EngineLost, match="a signal ended the wait"):
        pool.work([("where", ())])
    assert time.monotonic() - start < 10


def test_an_answer_lost_with_its_machine_is_computed_by_another_worker(monkeypatch):
    pool, get, lost = RayWorkerPool(Member, 1, 0, timeout=60), ray.get, []
    (first,) = pool.work([("where", ())])

    def lose_one(reference: Any) -> Any:
        if not lost:
            lost.append(reference)
            raise ObjectLostError("00", None, "")
        return get(reference)

    monkeypatch.setattr(ray, "get", lose_one)
    (second,) = pool.work([("where", ())])
    assert second == pool.pids[0] != first
    assert pool.lost == 1


def test_without_copies_no_call_waits_for_a_missing_worker(caplog):
    pool = RayWorkerPool(Member, 2, 0, timeout=60)
    calls = [("where", ())] * 2
    first = pool.work(calls, calls.__getitem__)
    assert first == pool.pids
    os.kill(first[1], signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (first[1], signal.SIGKILL)).start()
    assert pool.work(calls, calls.__getitem__) == [first[0], None]
    assert (
        pool.work(calls, calls.__getitem__, allow_reassignment=True) == [first[0]] * 2
    )
    await_all(pool)
    assert pool.work(calls, lambda s: None) == [None, None]  # Neither holds its share.
    assert pool.work(calls, calls.__getitem__) == pool.pids
    assert pool.work(calls, lambda s: None) == pool.pids  # Now they do.


def test_all_workers_lost_in_each_unroll_make_the_pool_give_up(monkeypatch):
    monkeypatch.setattr(ray_pool, "_ATTEMPTS", 2)
    pool = RayWorkerPool(Member, 1, 0, timeout=60)
    calls = [("die", ())]
    assert pool.work(calls, calls.__getitem__) == [None]
    with pytest.raises(EngineLost, match="all Ray workers were lost in each of 2"):
        pool.work(calls, calls.__getitem__)


def test_a_worker_that_cannot_start_raises_its_error():
    pool = RayWorkerPool(partial(int, "no number"), 1, 0, timeout=60)
    message = "a Ray worker cannot start: ValueError: invalid literal for int"
    with pytest.raises(ValueError, match=message):
        pool.work([("bit_length", ())])


class Member:
    """An object of a worker that returns the id of its process."""

    def __init__(self, late_from: str | None = None) -> None:
        """Wait a few seconds, unless this is the first object to make the folder."""
        if late_from is not None:
            try:
                os.mkdir(late_from)
            except FileExistsError:
                time.sleep(6)

    def where(self) -> int:
        return os.getpid()

    def die(self) -> None:
        os._exit(1)


def test_a_worker_that_joins_late_is_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ray_pool, "START_SECONDS", 1.0)
    build = partial(Member, str(tmp_path / "first"))
    pool = RayWorkerPool(build, 2, 0, timeout=60)
    ray.wait([handle.pid for handle in pool.handles], num_returns=1)
    answers = pool.work([("where", ())] * 2)
    assert answers[0] == answers[1]  # The started worker answers both calls.
    assert "1 of 2 workers have started, and the cluster has" in caplog.text
    await_all(pool)
    assert pool.work([("where", ())] * 2) == pool.pids
    assert len(set(pool.pids)) == 2 and pool.lost == 0


def test_a_share_that_kills_its_workers_makes_the_pool_give_up(monkeypatch, caplog):
    monkeypatch.setattr(ray_pool, "_ATTEMPTS", 2)
    pool = RayWorkerPool(Member, 2, 0, timeout=60)
    for _ in range(2):  # The second call raises the same error.
        with pytest.raises(EngineLost, match="2 Ray workers in a row were lost over"):
            pool.work([("where", ()), ("die", ())])
    assert pool.lost == 2
    assert caplog.text.count("died; another takes over") == 2


def test_deaths_before_the_start_in_a_row_make_the_pool_give_up(monkeypatch, caplog):
    monkeypatch.setattr(ray_pool, "_ATTEMPTS", 2)
    pool = RayWorkerPool(partial(os._exit, 1), 1, 0, timeout=60)
    with pytest.raises(EngineLost, match="2 Ray workers in a row were lost before"):
        pool.work([("where", ())])
    assert caplog.text.count("died before it had started; another") == 2


def test_deaths_with_answers_between_them_are_tolerated(monkeypatch):
    monkeypatch.setattr(ray_pool, "_ATTEMPTS", 2)
    pool = RayWorkerPool(Member, 1, 0, timeout=60)
    for deaths in range(4):
        (pid,) = pool.work([("where", ())])
        assert pool.lost == deaths
        os.kill(pid, signal.SIGKILL)


def test_a_closed_pool_frees_its_cpus():
    for _ in range(3):
        # Two of the cluster's four CPUs, some of which other pools occupy.
        pool = RayWorkerPool(Member, 1, 2, timeout=60)
        assert pool.work([("where", ())]) == pool.pids
        pool.close()


def test_no_worker_in_time_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(ray_pool, "START_SECONDS", 0.5)
    pool = RayWorkerPool(Member, 1, 99, timeout=60)
    message = "no worker has started for 0 s; .* 1 workers want 99 each"
    with pytest.raises(ValueError, match=message):
        pool.work([("where", ())])


def test_swimmer_with_a_killed_worker_is_the_same_to_the_bit():
    def train(workers: int) -> Any:
        parts = assemble(make_config("swimmer", "pes", workers=workers, **SWIMMER))
        theta = parts.init_theta(jax.random.key(0))
        state = parts.learner.init(theta, jax.random.key(1))
        for update in range(4):
            if workers and update == 2:
                pid = parts.learner._rollout.pool.pids[1]  # type: ignore[attr-defined]
                os.kill(pid, signal.SIGKILL)
            state, _ = parts.learner.run(state, 1)
        assert parts.lost_workers() == (1 if workers else 0)
        return np.asarray(state.theta)

    alone = train(0)
    assert alone.any()
    np.testing.assert_array_equal(train(2), alone)
