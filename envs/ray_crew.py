"""Workers on a Ray cluster: who does which share of the work, and who has died."""

# Ray is an extra.
# pyright: reportMissingImports=false

import logging
import os
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import ray
from ray.exceptions import RayActorError

from pes_rl.envs.ray_rollout import Call
from pes_rl.envs.rollout import EngineLost

_log = logging.getLogger(__name__)

START_SECONDS = 120.0
"""How long a worker may take to start.

So long the first unroll waits for all of them; then those that are there begin.
"""

_ATTEMPTS = 5
"""Workers that may be lost over one share of one unroll before the crew gives up.

So many in a row are not chance: the share itself kills them, or hangs.
"""

_STARTS = 10
"""Workers that may be lost before they have started, no answer between them."""


class RayCrew:
    """Ray actors; a `Crew` whose objects `build` makes, each in its own process.

    A worker that dies, or takes longer than `timeout` over a call, is given up: the
    event is logged and counted, and another is started in its place. It joins when it
    has started. What is lost again and again over the same share of an unroll, or
    before it has started, ends that: the crew gives up for good.

    Args:
        build: Makes the object; pickled.
        num_workers: W.
        num_threads: CPUs that a worker takes of the cluster's.
        timeout: Seconds after which a call that is not answered is given up.

    Attributes:
        lost: Workers given up so far.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        num_workers: int,
        num_threads: int,
        timeout: float,
    ) -> None:
        self.lost = 0
        self._timeout, self._num_threads = timeout, num_threads
        actor = ray.remote(_Worker).options(num_cpus=num_threads, max_restarts=0)
        self._start = lambda: _Seat(actor.remote(build))
        self._seats = [self._start() for _ in range(num_workers)]
        self._assembled = False
        self._lost_starts = 0
        self._given_up: EngineLost | None = None
        weakref.finalize(self, _dismiss, self._seats)

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def pids(self) -> list[int | None]:
        """Process ids of the workers on their machines; None of one not there yet."""
        return [seat.known_pid() for seat in self._seats]

    def close(self) -> None:
        """Let the workers go; no call is answered any more."""
        _dismiss(self._seats)

    def share(self, value: Any) -> Any:
        return ray.put(value)

    def work(
        self, calls: Sequence[Call], instead: Callable[[int], Call] | None = None
    ) -> list[Any]:
        """As of `Crew`.

        Raises:
            ValueError: If a worker cannot start.
            EngineLost: If workers are lost again and again; then so is every later
                call.
            Exception: What a call itself raised.
        """
        if self._given_up is not None:
            raise self._given_up
        self._assemble()
        for w, seat in enumerate(self._seats):
            if seat.has_failed_to_start():  # nobody asks it, and so nobody notices
                self._replace(w, "died")
        return _Round(self, calls, instead).answers()

    def _assemble(self) -> None:
        """Wait, once, until all workers are there or `START_SECONDS` have passed."""
        if self._assembled:
            return
        pids = [seat.pid for seat in self._seats]
        ready, _ = ray.wait(pids, num_returns=len(pids), timeout=START_SECONDS)
        try:
            ray.get(ready)
        except RayActorError as error:
            if error.actor_init_failed:
                raise ValueError(_cannot_start(error)) from None
        if not ready:
            raise ValueError(
                f"no worker has started for {START_SECONDS:.0f} s; the cluster may "
                f"have no free CPUs: {len(pids)} workers want {self._num_threads} each"
            )
        if len(ready) < len(pids):
            _log.warning(
                "%d of %d workers are not there after %.0f s; those that join later "
                "are used then",
                len(pids) - len(ready),
                len(pids),
                START_SECONDS,
            )
        self._assembled = True

    def _replace(self, s: int, why: str) -> None:
        """Give worker s up and start another in its place."""
        self.lost += 1
        if not self._seats[s].has_started():
            self._lost_starts += 1
            why = f"{why} before it had started"
        _log.warning("worker %d of %d %s; another takes over", s, len(self), why)
        ray.kill(self._seats[s].actor)
        self._seats[s] = self._start()
        if self._lost_starts == _STARTS:
            self._give_up(
                f"{_STARTS} Ray workers in a row were lost before they had started; "
                "Ray's logs, in /tmp/ray on their machines, may say why"
            )

    def _give_up(self, why: str) -> NoReturn:
        self._given_up = EngineLost(why)
        raise self._given_up


class _Round:
    """One call of `RayCrew.work`."""

    def __init__(
        self,
        crew: RayCrew,
        calls: Sequence[Call],
        instead: Callable[[int], Call] | None,
    ) -> None:
        self._crew, self._calls, self._instead = crew, list(calls), instead
        self._attempts = [0] * len(calls)
        self._answers: list[Any] = [None] * len(calls)
        # By the answer awaited: the call, the worker and when it is given up.
        self._asked: dict[Any, tuple[int, int, float]] = {}

    def answers(self) -> list[Any]:
        for s in range(len(self._calls)):
            self._ask(s)
        while self._asked:
            deadline = min(until for _, _, until in self._asked.values())
            patience = max(deadline - time.monotonic(), 0.0)
            done, _ = ray.wait(list(self._asked), timeout=patience)
            if done:
                self._collect(done[0])
            else:
                self._give_up()
        return self._answers

    def _anyone(self, s: int) -> int:
        """Worker s if it is there, else the one among those there with least to do."""
        seats = self._crew._seats
        load = [0] * len(seats)
        for _, w, _ in self._asked.values():
            load[w] += 1
        there = [w for w, seat in enumerate(seats) if seat.has_started()]
        return s if s in there or not there else min(there, key=lambda w: load[w])

    def _ask(self, s: int) -> None:
        w = self._anyone(s) if self._instead is None else s
        name, arguments = self._calls[s]
        answer = self._crew._seats[w].actor.call.remote(name, *arguments)
        # A worker answers one call after another, once it is there.
        ahead = sum(other == w for _, other, _ in self._asked.values())
        patience = (1 + ahead) * self._crew._timeout
        if not self._crew._seats[w].has_started():
            patience += START_SECONDS
        self._asked[answer] = (s, w, time.monotonic() + patience)

    def _collect(self, answer: Any) -> None:
        s, w, _ = self._asked[answer]
        try:
            self._answers[s] = ray.get(answer)
        except RayActorError as error:
            if error.actor_init_failed:
                self._crew._give_up(_cannot_start(error))
            self._lose(w, "died")
            return
        del self._asked[answer]
        self._crew._lost_starts = 0

    def _give_up(self) -> None:
        now = time.monotonic()
        late = {w for _, w, until in self._asked.values() if until <= now}
        for w in late:
            self._lose(w, f"has not answered for {self._crew._timeout:g} s")

    def _lose(self, w: int, why: str) -> None:
        """Replace worker w, and have all that it was to do done again."""
        lost = [(a, s) for a, (s, asked, _) in self._asked.items() if asked == w]
        if self._crew._seats[w].has_started():
            # It answers one call after another: this is the one that it was lost over.
            self._attempts[lost[0][1]] += 1
        self._crew._replace(w, why)
        if max(self._attempts) == _ATTEMPTS:
            self._crew._give_up(
                f"{_ATTEMPTS} Ray workers in a row were lost over the same share of an "
                "unroll; a run without workers may show why"
            )
        for answer, s in lost:
            del self._asked[answer]
            if self._instead is not None:
                self._calls[s] = self._instead(s)
            self._ask(s)


class _Seat:
    """A worker's place: the actor in it, and whether that has started."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.pid = actor.pid.remote()
        self._known_pid: int | None = None
        self._failed = False

    def known_pid(self) -> int | None:
        """Its process id; None as long as it has not started."""
        unknown = self._known_pid is None and not self._failed
        if unknown and ray.wait([self.pid], timeout=0)[0]:
            try:
                self._known_pid = ray.get(self.pid)
            except RayActorError:
                self._failed = True
        return self._known_pid

    def has_started(self) -> bool:
        """Whether it is there, or was."""
        return self.known_pid() is not None

    def has_failed_to_start(self) -> bool:
        return not self.has_started() and self._failed


def _cannot_start(error: RayActorError) -> str:
    """What to say where the object that workers hold cannot be made."""
    return f"a Ray worker cannot start: {str(error).strip().splitlines()[-1].strip()}"


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, build: Callable[[], Any]) -> None:
        import jax

        # The cluster's accelerators are not the workers'.
        jax.config.update("jax_platforms", "cpu")
        self._object = build()

    def pid(self) -> int:
        return os.getpid()

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self._object, name)(*arguments)


def _dismiss(seats: list[_Seat]) -> None:
    if ray.is_initialized():
        for seat in seats:
            ray.kill(seat.actor)
