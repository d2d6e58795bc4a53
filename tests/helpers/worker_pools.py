"""A worker pool in this process, and the objects that workers hold in tests."""

from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import counting

from pes_rl.envs.ray.rollout import Call
from pes_rl.envs.ray.worker_rollout import WorkerRollout


class LocalWorkerPool:
    """A `WorkerPool` of objects in this process, called one after another.

    Attributes:
        dying: Workers that die during their next call; each is replaced at once.
        absent: Workers that have not started.
        fresh: Workers that do not hold the simulations of their own share.
        sent_bytes: Size of all calls, answers and shared values so far.
    """

    def __init__(self, build: Callable[[], Any], num_workers: int) -> None:
        self.build, self.workers = build, [build() for _ in range(num_workers)]
        self.dying: set[int] = set()
        self.absent: set[int] = set()
        self.fresh = set(range(num_workers))
        self.sent_bytes = 0

    def __len__(self) -> int:
        return len(self.workers)

    def share(self, value: Any) -> Any:
        return self._sent(value)

    def work(
        self,
        calls: Sequence[Call],
        fallback: Callable[[int], Call | None] | None = None,
        *,
        allow_reassignment: bool = False,
    ) -> list[Any]:
        answers = []
        for s, call in enumerate(calls):
            answers.append(self._answer(s, call, fallback, allow_reassignment))
        self.dying = set()
        return answers

    def _answer(
        self,
        s: int,
        call: Call | None,
        fallback: Callable[[int], Call | None] | None,
        allow_reassignment: bool,
    ) -> Any:
        w, dies = s, s in self.dying
        assert call is not None
        if dies:
            name, arguments = call
            getattr(self.workers[s], name)(*self._sent(arguments))
            self.workers[s] = self.build()
            self.fresh.add(s)
        if dies or s in self.absent:
            if fallback is not None and not allow_reassignment:
                return None
            w = next(w for w in range(len(self)) if w not in {s, *self.absent})
        if fallback is not None and (w != s or s in self.fresh):
            call = fallback(s)
            if call is None:
                return None
        if fallback is not None:
            self.fresh = self.fresh - {s} if w == s else self.fresh | {w}
        name, arguments = call
        return self._sent(getattr(self.workers[w], name)(*self._sent(arguments)))

    def _sent(self, value: Any) -> Any:
        message = cloudpickle.dumps(value)
        self.sent_bytes += len(message)
        return cloudpickle.loads(message)


def counting_worker(can_copy: bool = True) -> WorkerRollout:
    return WorkerRollout(counting.host_rollout(can_copy=can_copy))
