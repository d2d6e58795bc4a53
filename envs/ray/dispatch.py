"""Dispatch of one set of calls to Ray workers, some of which may be lost."""

# Ray is an extra; where it is not installed, pyright takes this folder for it.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from pes_rl.envs.ray.rollout import Call
from pes_rl.envs.ray.worker import WorkerHandle, cannot_start

_CHECK_SECONDS = 1.0
"""Seconds between two checks of the cluster while answers are awaited."""


class DispatchPool(Protocol):
    """What a dispatch needs of `RayWorkerPool`, whose file imports this one."""

    handles: list[WorkerHandle]
    timeout: float
    start_seconds: float

    def record_answer(self) -> None: ...

    def replace(self, w: int, why: str) -> None: ...

    def give_up(self, why: str) -> NoReturn: ...

    def check_cluster(self) -> None: ...


class Dispatch:
    """The calls of one `RayWorkerPool.work`, and their answers.

    Args:
        pool: The workers.
        calls, fallback, allow_reassignment: Same as in `WorkerPool.work`.
        attempts: Number of workers that may be lost on one share.
    """

    def __init__(
        self,
        pool: DispatchPool,
        calls: Sequence[Call],
        fallback: Callable[[int], Call | None] | None,
        allow_reassignment: bool,
        attempts: int,
    ) -> None:
        self._pool, self._calls, self._fallback = pool, list(calls), fallback
        self._allow_reassignment = allow_reassignment or fallback is None
        self._attempts, self._lost = attempts, [0] * len(calls)
        self._answers: list[Any] = [None] * len(calls)
        # By Ray's reference of the answer: call, worker, and time of the timeout.
        self._pending: dict[Any, tuple[int, int, float]] = {}

    def answers(self) -> list[Any]:
        """Make the calls and wait for the answers; None where no worker could answer.

        Raises:
            EngineLost: If too many workers are lost, or the cluster is.
            Exception: Any exception that a call raised.
        """
        started = [handle.has_started() for handle in self._pool.handles]
        # Started workers first, while each still holds the simulations of its own
        # share: the call of a missing worker would replace them.
        for s in sorted(range(len(self._calls)), key=lambda s: not started[s]):
            self._assign(s)
        while self._pending:
            deadline = min(until for _, _, until in self._pending.values())
            timeout = min(deadline - time.monotonic(), _CHECK_SECONDS)
            done, _ = ray.wait(list(self._pending), timeout=max(timeout, 0.0))
            if done:
                self._collect(done[0])
            else:
                self._replace_late()
            self._pool.check_cluster()
        return self._answers

    def _assign(self, s: int) -> None:
        """Send call s to a worker, if one can answer it."""
        handles = self._pool.handles
        w = s
        if not handles[s].has_started():
            if not self._allow_reassignment:
                return
            w = self._least_busy(s)
        call = self._calls[s]
        if self._fallback is not None and not (w == s and handles[w].has_own_share):
            call = self._fallback(s)
            if call is None:
                return
        handles[w].has_own_share = w == s
        self._send(s, w, call)

    def _least_busy(self, s: int) -> int:
        """The started worker with the fewest pending calls; s if none has started."""
        handles = self._pool.handles
        load = [0] * len(handles)
        for _, w, _ in self._pending.values():
            load[w] += 1
        started = [w for w, handle in enumerate(handles) if handle.has_started()]
        return min(started, key=lambda w: load[w]) if started else s

    def _send(self, s: int, w: int, call: Call) -> None:
        name, arguments = call
        answer = self._pool.handles[w].actor.call.remote(name, *arguments)
        # A worker answers one call after the other, once it has started.
        ahead = sum(other == w for _, other, _ in self._pending.values())
        timeout = (1 + ahead) * self._pool.timeout
        if not self._pool.handles[w].has_started():
            timeout += self._pool.start_seconds
        self._pending[answer] = (s, w, time.monotonic() + timeout)

    def _collect(self, answer: Any) -> None:
        s, w, _ = self._pending[answer]
        try:
            self._answers[s] = ray.get(answer)
        except RayTaskError as error:
            # The message of Ray's error is the whole traceback of the worker.
            raise error.cause from error
        except RayActorError as error:
            if error.actor_init_failed:
                self._pool.give_up(cannot_start(error))
            self._lose(w, "died")
        except ObjectLostError:
            # The worker had answered, and the answer was lost with its machine.
            self._lose(w, "died")
        else:
            del self._pending[answer]
            self._pool.record_answer()

    def _replace_late(self) -> None:
        now = time.monotonic()
        late = {w for _, w, until in self._pending.values() if until <= now}
        for w in late:
            self._lose(w, f"has not answered for {self._pool.timeout:g} s")

    def _lose(self, w: int, why: str) -> None:
        """Replace worker w, and send its pending calls to others where possible."""
        lost = [(a, s) for a, (s, asked, _) in self._pending.items() if asked == w]
        if self._pool.handles[w].has_started():
            # It answers calls in order, so it was lost on the first of them.
            self._lost[lost[0][1]] += 1
        self._pool.replace(w, why)
        if max(self._lost) == self._attempts:
            self._pool.give_up(
                f"{self._attempts} Ray workers in a row were lost over the same share "
                "of an unroll; a run without workers may show why"
            )
        for answer, _ in lost:
            del self._pending[answer]
        for _, s in lost:
            self._assign(s)
