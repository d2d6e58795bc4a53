"""What all arms share: the clock of a run, its evaluations and its rows.

It needs NumPy and Gymnasium alone: it runs in the peers' environment too.
"""

import csv
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium
import numpy as np

Act = Callable[[np.ndarray], np.ndarray]
"""The deterministic policy: observations [N, O] to actions [N, A]."""

TASKS = {
    "halfcheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "swimmer": "Swimmer-v5",
}
EVALUATIONS = 20  # at equal distances over the minutes
EPISODES, FINAL_EPISODES = 5, 20
COLUMNS = (
    "arm",
    "task",
    "seed",
    "minutes",
    "cores",
    "seconds",
    "timesteps",
    "return",
    "std",
    "episodes",
    "evaluation_seconds",
)
"""Of curves.csv: `seconds` since the start of the process, at the end of the
evaluation; `evaluation_seconds` is how many of them went into evaluations so far."""


class TimeIsOver(BaseException):
    """The minutes of a run have passed; no `except Exception` of a library holds it."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        arm: What trains.
        task: A key of `TASKS`.
        seed: Seed of the run.
        minutes: Its wall time from the start of the process.
        cores: Processor cores that it has.
        curves: The CSV file of its rows.
        folder: A folder of its own.
        started: When its process started, in seconds since the epoch.
    """

    arm: str
    task: str
    seed: int
    minutes: float
    cores: int
    curves: str
    folder: str
    started: float = 0.0

    @property
    def name(self) -> str:
        """Its name in lines that are printed, and of its folder."""
        return f"{self.arm}-{self.task}-s{self.seed}"

    @property
    def seconds(self) -> float:
        """Its wall time in seconds."""
        return 60 * self.minutes

    @property
    def elapsed(self) -> float:
        """Seconds since its process started."""
        return time.time() - self.started

    def start_now(self) -> "Run":
        """The same run, started now."""
        return replace(self, started=time.time())

    def as_argument(self) -> str:
        """The run as a command-line argument of an arm's program."""
        return json.dumps(asdict(self))


def read_run() -> Run:
    """The run that the command line of an arm's program describes."""
    return Run(**json.loads(sys.argv[1]))


class Record:
    """Evaluates a run when it is time to, and writes its rows as they come."""

    def __init__(self, run: Run) -> None:
        self._run, self._due, self._evaluation_seconds = run, 0.0, 0.0
        self._environments = make_environments(run.task, EPISODES)
        self._first_seed = 1_000_000 * (run.seed + 1)

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next evaluation."""
        return self._run.elapsed >= self._due

    def evaluate(self, act: Act, timesteps: int) -> None:
        """Play the episodes of an evaluation; the time counts."""
        begun = self._run.elapsed
        returns = play(self._environments, act, self._first_seed)
        self._first_seed += EPISODES
        now, interval = self._run.elapsed, self._run.seconds / EVALUATIONS
        self._due = interval * (now // interval + 1)
        self._evaluation_seconds += now - begun
        self.add(now, timesteps, returns.mean(), returns.std(), EPISODES)

    def finish(self, act: Act, timesteps: int, seconds: float) -> None:
        """Play the last episodes, which do not count, and write the last row."""
        environments = make_environments(self._run.task, FINAL_EPISODES)
        returns = play(environments, act, 500_000_000 + 1_000 * self._run.seed)
        self.add(seconds, timesteps, returns.mean(), returns.std(), FINAL_EPISODES)

    def add(
        self,
        seconds: float,
        timesteps: int,
        mean: float,
        std: float,
        episodes: int,
        evaluation_seconds: float | None = None,
    ) -> None:
        """Append a row; `evaluation_seconds` are this object's own, if not given."""
        if evaluation_seconds is not None:
            self._evaluation_seconds = evaluation_seconds
        run = self._run
        values = (seconds, timesteps, mean, std, episodes, self._evaluation_seconds)
        forms = (".1f", "d", ".1f", ".1f", "d", ".1f")
        cells = [format(value, form) for value, form in zip(values, forms, strict=True)]
        key = (run.arm, run.task, run.seed, f"{run.minutes:g}", run.cores)
        # Opened for each row: runs side by side append to the same file.
        with Path(run.curves).open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([*key, *cells])


def make_environments(task: str, count: int) -> list[gymnasium.Env[Any, Any]]:
    """Environments for `play`."""
    return [gymnasium.make(TASKS[task]) for _ in range(count)]


def play(
    environments: list[gymnasium.Env[Any, Any]], act: Act, seed: int
) -> np.ndarray:
    """Return of an episode in each environment, begun with seeds from `seed` on."""
    starts = [env.reset(seed=seed + i)[0] for i, env in enumerate(environments)]
    observations = np.stack(starts)
    returns, running = np.zeros(len(environments)), np.ones(len(environments), bool)
    while running.any():
        actions = act(observations)
        for i in np.flatnonzero(running):
            step = environments[i].step(actions[i])
            observations[i] = step[0]
            returns[i] += float(step[1])
            running[i] = not (step[2] or step[3])
    return returns


def raise_at_the_end(run: Run) -> None:
    """Let `TimeIsOver` be raised in the main thread when the run's minutes are over."""

    def handle(number: int, frame: FrameType | None) -> None:
        # Once a second, because Python drops what is raised in a finaliser.
        raise TimeIsOver

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, max(run.seconds - run.elapsed, 1e-3), 1.0)


def stop_raising() -> None:
    """End what `raise_at_the_end` began."""
    signal.setitimer(signal.ITIMER_REAL, 0)
