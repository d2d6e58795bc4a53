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


class Round:
    """One call of `RayCrew.work`.

    Args:
        crew: The `RayCrew`, which imports this file.
        calls, instead, by_anyone: As of `Crew.work`.
        attempts: Workers that may be lost over one share.
    """

    def __init__(
        self,
        crew: Any,
        calls: Sequence[Call],
        instead: Callable[[int], Call | None] | None,
        by_anyone: bool,
        attempts: int,
    ) -> None:
        self._crew, self._calls, self._instead = crew, list(calls), instead
        self._by_anyone = by_anyone or instead is None
        self._attempts, self._lost = attempts, [0] * len(calls)
        self._answers: list[Any] = [None] * len(calls)
        # By the answer awaited: the call, the worker and when it is given up.
        self._asked: dict[Any, tuple[int, int, float]] = {}

    def answers(self) -> list[Any]:
        there = [seat.has_started() for seat in self._crew.seats]
        # Each its own share first: who holds it need not take it up anew.
        for s in sorted(range(len(self._calls)), key=lambda s: not there[s]):
            self._hand_out(s)
        while self._asked:
            deadline = min(until for _, _, until in self._asked.values())
            patience = min(deadline - time.monotonic(), _CHECK_SECONDS)
            done, _ = ray.wait(list(self._asked), timeout=max(patience, 0.0))
            if done:
                self._collect(done[0])
            else:
                self._give_up_late()
                self._crew.check_head()
        return self._answers

    def _hand_out(self, s: int) -> None:
        """Ask a worker for share s, if there is one for it."""
        seats = self._crew.seats
        w = s
        if not seats[s].has_started():
            if not self._by_anyone:
                return
            w = self._least_busy(s)
        call = self._calls[s]
        if self._instead is not None and not (w == s and seats[w].holds):
            call = self._instead(s)
            if call is None:
                return
        seats[w].holds = w == s
        self._ask(s, w, call)

    def _least_busy(self, s: int) -> int:
        """The worker among those there with least to do; s if there is none."""
        seats = self._crew.seats
        load = [0] * len(seats)
        for _, w, _ in self._asked.values():
            load[w] += 1
        there = [w for w, seat in enumerate(seats) if seat.has_started()]
        return min(there, key=lambda w: load[w]) if there else s

    def _ask(self, s: int, w: int, call: Call) -> None:
        name, arguments = call
        answer = self._crew.seats[w].actor.call.remote(name, *arguments)
        # A worker answers one call after another, once it is there.
        ahead = sum(other == w for _, other, _ in self._asked.values())
        patience = (1 + ahead) * self._crew.timeout
        if not self._crew.seats[w].has_started():
            patience += self._crew.start_seconds
        self._asked[answer] = (s, w, time.monotonic() + patience)

    def _collect(self, answer: Any) -> None:
        s, w, _ = self._asked[answer]
        try:
            self._answers[s] = ray.get(answer)
        except RayActorError as error:
            if error.actor_init_failed:
                self._crew.give_up(cannot_start(error))
            self._lose(w, "died")
        except ObjectLostError:  # it had answered, and its machine went with that
            self._lose(w, "died")
        else:
            del self._asked[answer]
            self._crew.note_answer()

    def _give_up_late(self) -> None:
        now = time.monotonic()
        late = {w for _, w, until in self._asked.values() if until <= now}
        for w in late:
            self._lose(w, f"has not answered for {self._crew.timeout:g} s")

    def _lose(self, w: int, why: str) -> None:
        """Replace worker w, and have others do what it was to do where they can."""
        lost = [(a, s) for a, (s, asked, _) in self._asked.items() if asked == w]
        if self._crew.seats[w].has_started():
            # It answers one call after another: this is the one that it was lost over.
            self._lost[lost[0][1]] += 1
        self._crew.replace(w, why)
        if max(self._lost) == self._attempts:
            self._crew.give_up(
                f"{self._attempts} Ray workers in a row were lost over the same share "
                "of an unroll; a run without workers may show why"
            )
        for answer, _ in lost:
            del self._asked[answer]
        for _, s in lost:
            self._hand_out(s)
