"""A pool of Ray workers that replaces lost ones."""

# Ray is an extra; where it is not installed, pyright takes this folder for it.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
import ray
from ray.exceptions import RayActorError

from pes_rl.envs.ray.cluster import ClusterMonitor
from pes_rl.envs.ray.dispatch import Dispatch
from pes_rl.envs.ray.rollout import Call
from pes_rl.envs.ray.worker import WorkerHandle, cannot_start
from pes_rl.envs.rollout.base import EngineLost

_log = logging.getLogger(__name__)

START_SECONDS = 120.0
"""Seconds that a worker may take to start.

The first unroll waits this long for all workers; then the started ones begin.
"""

QUIET_SECONDS = 10.0
"""Seconds of waiting for workers after which a warning is logged."""

GRACE_SECONDS = 10.0
"""Seconds that an update in progress may still take after a signal."""

SMALL_BYTES = 2**15
"""Values up to this many bytes are sent with each call.

Ray's object store would deliver them 2 to 3 ms later.
"""

_ATTEMPTS = 5
"""Number of workers that may be lost in a row before the pool gives up.

In a row means: on one share of one unroll; as one worker before it had started, with no
answer of any worker in between; or all workers in each unroll. That is no coincidence.
"""


class RayWorkerPool:
    """A pool of Ray actors, each a process with an object that `build` makes.

    The actors are spread over the machines of the cluster. A worker that dies, or does
    not answer a call within `timeout`, is replaced: the event is logged and counted,
    and a new worker is started on any machine that has free CPUs, now or later. It is
    used once it has started. The pool gives up for good when workers are lost again and
    again, when no node of the cluster is alive or its head does not answer, and
    soon after a signal (`interrupt`).

    Args:
        build: Makes the object of a worker; it is pickled.
        num_workers: Number of workers W.
        num_threads: CPUs of the cluster that a worker occupies.
        timeout: Seconds after which a worker that does not answer is replaced.

    Attributes:
        lost: Number of workers replaced so far.
        timeout: As given.
        start_seconds: Seconds that a worker may take to start.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        num_workers: int,
        num_threads: int,
        timeout: float,
    ) -> None:
        self.lost, self.timeout, self.start_seconds = 0, timeout, START_SECONDS
        self._num_threads, self._cluster = num_threads, ClusterMonitor()
        self._start = lambda: WorkerHandle(build, num_threads)
        self.handles = [self._start() for _ in range(num_workers)]
        self._waited = False
        self._failed_starts = Counter[int]()
        self._failed_unrolls = 0
        self._failure: EngineLost | None = None
        self._interrupted_at: float | None = None
        weakref.finalize(self, _kill_workers, self.handles)

    def __len__(self) -> int:
        return len(self.handles)

    @property
    def pids(self) -> list[int | None]:
        """Process ids of the workers; None before a worker has started."""
        return [handle.known_pid() for handle in self.handles]

    def close(self) -> None:
        """End the workers; no call is answered afterwards."""
        _kill_workers(self.handles)

    def share(self, value: Any) -> Any:
        sizes = (np.asarray(leaf).nbytes for leaf in jax.tree.leaves(value))
        return value if sum(sizes) <= SMALL_BYTES else ray.put(value)

    def work(
        self,
        calls: Sequence[Call],
        fallback: Callable[[int], Call | None] | None = None,
        *,
        allow_reassignment: bool = False,
    ) -> list[Any]:
        """Same as `WorkerPool.work`.

        Raises:
            ValueError: If a worker cannot start.
            EngineLost: If workers are lost again and again, or no node is alive, or
                after `interrupt`; every later call raises it too.
            Exception: Any exception that a call raised.
        """
        if self._failure is not None:
            raise self._failure
        self._wait_for_workers()
        self._wait_for_any_worker()
        answers = Dispatch(
            self, calls, fallback, allow_reassignment, _ATTEMPTS
        ).answers()
        if any(answer is not None for answer in answers):
            self._failed_unrolls = 0
        else:
            self._failed_unrolls += 1
        if self._failed_unrolls == _ATTEMPTS:
            self.give_up(
                f"all Ray workers were lost in each of {_ATTEMPTS} unrolls in a row; a "
                "run without workers may show why"
            )
        return answers

    def record_answer(self) -> None:
        """Reset the count of failed starts, because a worker has answered."""
        self._failed_starts.clear()

    def replace(self, w: int, why: str) -> None:
        """End worker w and start a new one in its place.

        Raises:
            EngineLost: If too many workers were lost in a row.
        """
        self.lost += 1
        if not self.handles[w].has_started():
            self._failed_starts[w] += 1
            why = f"{why} before it had started"
        _log.warning("worker %d of %d %s; another takes over", w, len(self), why)
        ray.kill(self.handles[w].actor)
        self.handles[w] = self._start()
        if self._failed_starts[w] == _ATTEMPTS:
            self.give_up(
                f"{_ATTEMPTS} Ray workers in a row were lost before they had started; "
                "Ray's logs, in /tmp/ray on their machines, may say why"
            )

    def give_up(self, why: str) -> NoReturn:
        """End the pool for good.

        Raises:
            EngineLost: Always, with this reason.
        """
        self._failure = EngineLost(why)
        raise self._failure

    def check_cluster(self) -> None:
        """Check that the cluster is there, and that no signal wants the run to end.

        Raises:
            EngineLost: If it is lost, or `interrupt` was called `GRACE_SECONDS` ago.
        """
        if self._interrupted_at is not None:
            waited = time.monotonic() - self._interrupted_at
            if waited >= GRACE_SECONDS:
                self.give_up("a signal ended the wait for Ray workers")
        if (failure := self._cluster.failure()) is not None:
            self.give_up(failure)

    def interrupt(self) -> None:
        """Let every wait end after `GRACE_SECONDS`; safe in a signal handler."""
        if self._interrupted_at is None:
            self._interrupted_at = time.monotonic()

    def _replace_failed(self) -> None:
        """Replace workers that failed to start; they get no calls that would show it.

        Raises:
            EngineLost: If starts fail again and again.
        """
        for w, handle in enumerate(self.handles):
            if (failure := handle.failure()) is not None:
                why = f" ({cannot_start(failure)})" if failure.actor_init_failed else ""
                self.replace(w, f"died{why}")

    def _wait_for_workers(self) -> None:
        """Wait, in the first call, until all workers have started or time is up."""
        if self._waited:
            return
        begun = time.monotonic()
        ready, late = self._wait_for_all(min(QUIET_SECONDS, self.start_seconds))
        if late:
            _log.warning(
                "%s; waiting for up to %.0f s",
                self._describe_started(ready),
                self.start_seconds,
            )
            left = self.start_seconds - (time.monotonic() - begun)
            ready, late = self._wait_for_all(max(left, 0.0))
        if not ready:
            raise ValueError(
                f"no worker has started for {self.start_seconds:.0f} s; the cluster "
                f"may have no free CPUs: {len(self)} workers want {self._num_threads} "
                "each"
            )
        if late:
            _log.warning(
                "%s; the others are used when they join", self._describe_started(ready)
            )
        self._waited = True

    def _wait_for_all(self, seconds: float) -> tuple[list[Any], list[Any]]:
        """Wait for the starts; returns the references of the started and late workers.

        Raises:
            ValueError: If a worker cannot start.
        """
        pids = [handle.pid for handle in self.handles]
        until = time.monotonic() + seconds
        ready, late = [], pids
        while late:
            left = min(max(until - time.monotonic(), 0.0), 1.0)
            ready, late = ray.wait(pids, num_returns=len(pids), timeout=left)
            if time.monotonic() >= until:
                break
            self.check_cluster()
        try:
            ray.get(ready)
        except RayActorError as error:
            if error.actor_init_failed:
                raise ValueError(cannot_start(error)) from None
        return ready, late

    def _describe_started(self, ready: list[Any]) -> str:
        free = ray.available_resources().get("CPU", 0)
        return (
            f"{len(ready)} of {len(self)} workers have started, and the cluster has "
            f"{free:g} CPUs free, where each takes {self._num_threads}"
        )

    def _wait_for_any_worker(self) -> None:
        """Wait until at least one worker has started.

        Raises:
            EngineLost: If none does in time.
        """
        limit, warned = self.start_seconds + self.timeout, False
        until = time.monotonic() + limit
        self.check_cluster()
        self._replace_failed()
        while not any(handle.has_started() for handle in self.handles):
            if not warned:
                _log.warning("no worker has started; waiting for up to %.0f s", limit)
                warned = True
            if time.monotonic() > until:
                self.give_up(
                    f"no Ray worker has started for {limit:.0f} s; the cluster may "
                    "have no free CPUs"
                )
            ray.wait([handle.pid for handle in self.handles], timeout=1.0)
            self.check_cluster()
            self._replace_failed()


def _kill_workers(handles: list[WorkerHandle]) -> None:
    if ray.is_initialized():
        for handle in handles:
            ray.kill(handle.actor)
