"""One round of calls to Ray workers, of whom some may be lost over it."""

# Ray is an extra.
# pyright: reportMissingImports=false

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError

from pes_rl.envs.ray.rollout import Call
from pes_rl.envs.ray.worker import cannot_start

_CHECK_SECONDS = 5.0
"""How often the head is looked after while answers are awaited."""


class Dispatch:
    """One call of `RayWorkerPool.work`.

    Args:
        pool: The `RayWorkerPool`, which imports this file.
        calls, instead, allow_reassignment: As of `WorkerPool.work`.
        attempts: Workers that may be lost over one share.
    """

    def __init__(
        self,
        pool: Any,
        calls: Sequence[Call],
        instead: Callable[[int], Call | None] | None,
        allow_reassignment: bool,
        attempts: int,
    ) -> None:
        self._pool, self._calls, self._instead = pool, list(calls), instead
        self._allow_reassignment = allow_reassignment or instead is None
        self._attempts, self._lost = attempts, [0] * len(calls)
        self._answers: list[Any] = [None] * len(calls)
        # By the answer awaited: the call, the worker and when it is given up.
        self._asked: dict[Any, tuple[int, int, float]] = {}

    def answers(self) -> list[Any]:
        there = [handle.has_started() for handle in self._pool.handles]
        # Each its own share first: who has_own_share it need not take it up anew.
        for s in sorted(range(len(self._calls)), key=lambda s: not there[s]):
            self._assign(s)
        while self._asked:
            deadline = min(until for _, _, until in self._asked.values())
            patience = min(deadline - time.monotonic(), _CHECK_SECONDS)
            done, _ = ray.wait(list(self._asked), timeout=max(patience, 0.0))
            if done:
                self._collect(done[0])
            else:
                self._give_up_late()
                self._pool.check_head()
        return self._answers

    def _assign(self, s: int) -> None:
        """Ask a worker for share s, if there is one for it."""
        handles = self._pool.handles
        w = s
        if not handles[s].has_started():
            if not self._allow_reassignment:
                return
            w = self._least_busy(s)
        call = self._calls[s]
        if self._instead is not None and not (w == s and handles[w].has_own_share):
            call = self._instead(s)
            if call is None:
                return
        handles[w].has_own_share = w == s
        self._ask(s, w, call)

    def _least_busy(self, s: int) -> int:
        """The worker among those there with least to do; s if there is none."""
        handles = self._pool.handles
        load = [0] * len(handles)
        for _, w, _ in self._asked.values():
            load[w] += 1
        there = [w for w, handle in enumerate(handles) if handle.has_started()]
        return min(there, key=lambda w: load[w]) if there else s

    def _ask(self, s: int, w: int, call: Call) -> None:
        name, arguments = call
        answer = self._pool.handles[w].actor.call.remote(name, *arguments)
        # A worker answers one call after another, once it is there.
        ahead = sum(other == w for _, other, _ in self._asked.values())
        patience = (1 + ahead) * self._pool.timeout
        if not self._pool.handles[w].has_started():
            patience += self._pool.start_seconds
        self._asked[answer] = (s, w, time.monotonic() + patience)

    def _collect(self, answer: Any) -> None:
        s, w, _ = self._asked[answer]
        try:
            self._answers[s] = ray.get(answer)
        except RayActorError as error:
            if error.actor_init_failed:
                self._pool.give_up(cannot_start(error))
            self._lose(w, "died")
        except ObjectLostError:  # it had answered, and its machine went with that
            self._lose(w, "died")
        else:
            del self._asked[answer]
            self._pool.record_answer()

    def _give_up_late(self) -> None:
        now = time.monotonic()
        late = {w for _, w, until in self._asked.values() if until <= now}
        for w in late:
            self._lose(w, f"has not answered for {self._pool.timeout:g} s")

    def _lose(self, w: int, why: str) -> None:
        """Replace worker w, and have others do what it was to do where they can."""
        lost = [(a, s) for a, (s, asked, _) in self._asked.items() if asked == w]
        if self._pool.handles[w].has_started():
            # It answers one call after another: this is the one that it was lost over.
            self._lost[lost[0][1]] += 1
        self._pool.replace(w, why)
        if max(self._lost) == self._attempts:
            self._pool.give_up(
                f"{self._attempts} Ray workers in a row were lost over the same share "
                "of an unroll; a run without workers may show why"
            )
        for answer, _ in lost:
            del self._asked[answer]
        for _, s in lost:
            self._assign(s)
