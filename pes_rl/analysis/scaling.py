"""Weak and strong scaling of Ray workers, bytes of an update, and a model: `scaling`.

Updates of PES by 1 and 2 workers of one thread each, and by none (no Ray), with one
thread and with two. They are measured in turn, round after round, so that whatever else
the machine does hits each alike. Four workers are measured after them, for idle workers
take CPU as well, and with short unrolls only: on fewer cores they tell what a message
costs, not the speed-up by a worker. Bytes are those of what is sent and answered,
serialised as Ray does.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pes_rl.agents import PES
from pes_rl.analysis.output import Row, new_figure, print_table, write_csv
from pes_rl.analysis.scaling_model import Model, predict
from pes_rl.assembly.factories import make_environment, make_policy, make_rollout
from pes_rl.assembly.ray import make_ray_rollout
from pes_rl.config.train_config import make_config
from pes_rl.envs.ray.rollout import Call
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig

COMPARED = ((0, 1), (0, 2), (1, 1), (2, 1))
"""Workers, and threads of each, or of this process where there are none."""

MORE = ((4, 1),)
"""Same, but measured by themselves and with short unrolls alone."""


class Counted:
    """A worker pool that counts the bytes sent and received."""

    def __init__(self, pool: Any) -> None:
        self._pool, self.out, self.back = pool, 0, 0

    def __len__(self) -> int:
        return len(self._pool)

    def share(self, value: Any) -> Any:
        self.out += len(self) * _size(value)
        return self._pool.share(value)

    def work(
        self,
        calls: Sequence[Call],
        fallback: Callable[[int], Call | None] | None = None,
        *,
        allow_reassignment: bool = False,
    ) -> list[Any]:
        # What is shared goes as a reference, and has been counted.
        self.out += sum(_size((name, own[0], *own[2:])) for name, own in calls)
        answers = self._pool.work(
            calls, fallback, allow_reassignment=allow_reassignment
        )
        self.back += sum(map(_size, answers))
        return answers


def _size(value: Any) -> int:
    from ray import cloudpickle  # type: ignore[reportMissingImports]  # Ray is an extra.

    return len(cloudpickle.dumps(value))  # type: ignore[reportPrivateImportUsage]


@dataclass
class Training:
    """Updates of PES on a rollout, one after the other."""

    row: Row
    rollout: Any

    def __post_init__(self) -> None:
        pairs, unroll = self.row["particles"] // 2, self.row["unroll"]
        self._theta = jax.numpy.zeros(self.row["parameters"])
        self._estimator = PES(pairs, unroll, 0.1, stagger=True)
        self._learner = self._make_learner(self.rollout)
        self._state = self._learner.init(self._theta, jax.random.key(0))
        self._seconds: list[float] = []
        self._update()  # compiles

    def _make_learner(self, rollout: Any) -> Learner:
        return Learner(rollout, self._estimator, OptimizerConfig("sgd", 1e-3), 10**9)

    def measure(self) -> None:
        """Measure an update that follows another at once, as in training.

        The first of the two finds the caches as the other cases have left them.
        """
        self._update()
        self._seconds.append(self._update())

    def _update(self) -> float:
        begun = time.perf_counter()
        self._state, _ = self._learner.run(self._state, 1)
        jax.block_until_ready(self._state.theta)
        return time.perf_counter() - begun

    def count_bytes(self) -> tuple[int, int]:
        """Bytes that one update sends to and receives from all workers."""
        if not self.row["workers"]:
            return 0, 0
        pool = Counted(self.rollout.pool)
        counted = replace(self.rollout, pool=pool)
        self._make_learner(counted).run(self._state, 1)
        return pool.out, pool.back

    def close(self) -> None:
        """Release the workers of the rollout."""
        if self.row["workers"]:
            self.rollout.pool.close()

    def result(self) -> Row:
        seconds = float(np.median(self._seconds))
        out, back = self.count_bytes()
        steps = self.row["particles"] * self.row["unroll"]
        return {
            **self.row,
            "seconds": seconds,
            "steps_per_second": steps / seconds,
            "bytes_out": out,
            "bytes_back": back,
        }


@dataclass(frozen=True)
class Scaling:
    """Measure the scaling of Ray workers with one thread each, and predict more."""

    env: tuple[str, ...] = ("swimmer", "halfcheetah")
    """Native MuJoCo tasks."""
    num_pairs: tuple[int, ...] = (32, 64)
    """Antithetic pairs P; the last twice the one before, for weak scaling."""
    truncation_length: tuple[int, int] = (10, 100)
    """Steps K of an unroll, a short one and the one that counts."""
    rounds: int = 7
    """Updates measured of each case, of which the median counts."""
    logdir: str = "runs/scaling"
    """Folder of measured.csv, predicted.csv and scaling.png."""

    def run(self) -> None:
        """Measure, print and write.

        Raises:
            ValueError: If Ray is not installed or a size cannot be.
        """
        measured, predicted = [], []
        for env in self.env:
            rows = self._measure(env)
            model = Model.fit(rows, os.cpu_count() or 1)
            print_table(rows)
            print(f"{env}: {model}")
            error = model.error(rows, os.cpu_count() or 1)
            print(f"the model misses no measured update by more than {error:.0%}")
            measured += rows
            predicted += predict(model, rows, self.truncation_length[-1])
        out = Path(self.logdir)
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "measured.csv", measured)
        write_csv(out / "predicted.csv", predicted)
        _draw(out / "scaling.png", measured, predicted, self.truncation_length[-1])
        print_table([row for row in predicted if row["workers"] in (10, 100, 1000)])
        print(f"results: {out}")

    def _measure(self, env: str) -> list[Row]:
        _connect(sum(workers for workers, _ in COMPARED + MORE))
        compared = self._time_interleaved(env, COMPARED, self.truncation_length)
        first = self.truncation_length[:1]
        return compared + self._time_interleaved(env, MORE, first)

    def _time_interleaved(
        self, env: str, cases: Sequence[tuple[int, int]], unrolls: Sequence[int]
    ) -> list[Row]:
        trainings = list(self._trainings(env, cases, unrolls))
        for _ in range(self.rounds):
            for training in trainings:
                training.measure()
        rows = [training.result() for training in trainings]
        for training in trainings:
            training.close()
        return rows

    def _trainings(
        self, env: str, cases: Sequence[tuple[int, int]], unrolls: Sequence[int]
    ) -> Iterator[Training]:
        for workers, threads in cases:
            rollout, num_parameters = _make_rollout(env, workers, threads)
            for unroll in unrolls:
                for pairs in self.num_pairs:
                    row = {
                        "env": env,
                        "workers": workers,
                        "threads": threads,
                        "particles": 2 * pairs,
                        "unroll": unroll,
                        "parameters": num_parameters,
                    }
                    yield Training(row, rollout)


def _connect(num_cpus: int) -> None:
    try:
        from pes_rl.envs.ray.cluster import connect
    except ModuleNotFoundError:
        raise ValueError("scaling needs Ray: pip install 'pes-rl[ray]'") from None
    connect(None, num_cpus)


def _make_rollout(env: str, workers: int, threads: int) -> tuple[Any, int]:
    """A rollout with this many workers, and the size D of its policy."""
    config = make_config(env, "pes", workers=workers, num_threads=threads)
    environment = make_environment(config, env)
    policy = make_policy(config, environment)
    if workers:
        rollout = make_ray_rollout(config, policy, environment)
    else:
        rollout = make_rollout(config, environment, policy)
    return rollout, policy.num_parameters


def _draw(path: Path, measured: list[Row], predicted: list[Row], unroll: int) -> None:
    figure = new_figure(10, 3.8)
    axes = figure.add_subplot(1, 2, 1)
    envs = list(dict.fromkeys(row["env"] for row in measured))
    for number, env in enumerate(envs):
        own = [
            row
            for row in measured
            if (row["env"], row["unroll"], row["threads"]) == (env, unroll, 1)
        ]
        most = max(row["particles"] for row in own)
        strong = {r["workers"]: r for r in own if r["particles"] == most}
        weak = {1: next(r for r in own if r["workers"] == 1), 2: strong[2]}
        for kind, rows, style in (("strong", strong, "o-"), ("weak", weak, "s--")):
            axes.plot(
                list(rows),
                [row["steps_per_second"] for row in rows.values()],
                style,
                color=f"C{number}",
                label=f"{env}, {kind}",
            )
    axes.set_xticks([0, 1, 2], ["no Ray", "1", "2"])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("workers of one thread, measured")
    axes.set_ylabel("environment steps a second")
    right = figure.add_subplot(1, 2, 2)
    for number, env in enumerate(envs):
        for kind, style in (("strong", "-"), ("weak", "--")):
            own = [r for r in predicted if (r["env"], r["kind"]) == (env, kind)]
            counts = [row["workers"] for row in own]
            gains = [row["efficiency"] * row["workers"] for row in own]
            label = f"{env}, {kind}"
            right.loglog(counts, gains, style, color=f"C{number}", label=label)
    right.loglog([1, 1000], [1, 1000], "k:", label="as many times as workers")
    right.set_xlabel("workers with a core each, by the model")
    right.set_ylabel("times as fast as one")
    for each in (axes, right):
        each.grid(alpha=0.3)
        each.legend(fontsize=7)
    figure.savefig(path)
