"""A crew in this process, and what workers hold in tests."""

from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import counting

from pes_rl.envs.ray_rollout import Call, SliceRollout


class LocalCrew:
    """As of `Crew`, one worker after another; those in `dying` die over their call."""

    def __init__(self, build: Callable[[], Any], num_workers: int) -> None:
        self.build, self.workers = build, [build() for _ in range(num_workers)]
        self.dying: set[int] = set()
        self.sent_bytes = 0

    def __len__(self) -> int:
        return len(self.workers)

    def share(self, value: Any) -> Any:
        return self._sent(value)

    def work(
        self, calls: Sequence[Call], instead: Callable[[int], Call] | None = None
    ) -> list[Any]:
        answers = []
        for s, (name, arguments) in enumerate(calls):
            if s in self.dying:
                getattr(self.workers[s], name)(*self._sent(arguments))
                self.workers[s] = self.build()
                if instead is not None:
                    name, arguments = instead(s)
            answer = getattr(self.workers[s], name)(*self._sent(arguments))
            answers.append(self._sent(answer))
        self.dying = set()
        return answers

    def _sent(self, value: Any) -> Any:
        message = cloudpickle.dumps(value)
        self.sent_bytes += len(message)
        return cloudpickle.loads(message)


def counting_slice(can_copy: bool = True) -> SliceRollout:
    return SliceRollout(counting.host_rollout(can_copy=can_copy))
