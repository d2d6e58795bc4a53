"""Memory of an update of a large policy, all pairs at once or in chunks: `memory`.

By default of two systems, one on a device and one on the host. The first is a single
number, so that all that grows with D is the estimator's:

    s = mean of tanh(theta s + 1),    L = s^2

The second is Swimmer, stepped natively, with a network of two equal hidden layers.

The cases of an agent and a D, all at once and in chunks, share a process. Measured is
by how much its resident memory peaks above what it held before there was a theta (Linux
and glibc, which is told to give back what is freed): theta, what the estimator keeps,
and what an update takes in between. And, on a device, what XLA planned for the compiled
update: arguments, results and what lies between. Then the cases are timed in turn.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pes_rl.agents import AGENTS
from pes_rl.agents.core.chunks import CHUNK_FLOATS
from pes_rl.agents.core.estimator import check_population, check_truncation_length
from pes_rl.analysis import memory_case
from pes_rl.analysis.memory_case import NUMBER, Case, make_system
from pes_rl.analysis.output import Row, Table, new_figure, print_table
from pes_rl.envs.names import unknown_name


@dataclass(frozen=True)
class Memory:
    """Memory and time of an update as D grows, all pairs at once and one at a time.

    And as many as the default takes, where these are fewer than all. What is measured
    is written as it comes; Ctrl-C keeps it.
    """

    env: tuple[str, ...] = (NUMBER, "swimmer")
    """Systems: number, a single one on a device, or environments as for training."""
    agent: tuple[str, ...] = ("pes", "nres", "es", "truncated-es")
    """Estimators that work in chunks."""
    parameters: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    """Parameters D; a network has as many as it can up to these."""
    num_pairs: int = 16
    """Antithetic pairs P."""
    truncation_length: int = 2
    """Steps K of an unroll."""
    horizon: int = 8
    """Steps T of an episode."""
    rounds: int = 2
    """Times that an episode's updates are timed, of which the shortest counts."""
    logdir: str = "runs/memory"
    """Folder of memory.csv and memory.png."""

    def run(self) -> None:
        """Measure, print and write.

        Raises:
            ValueError: If an agent is unknown or holds all pairs at once, or an
                environment or a size cannot be.
        """
        self._check()
        out = Path(self.logdir)
        table = Table(out / "memory.csv")
        for cases in self._cases():
            rows = _in_a_process(cases, self.rounds)
            print_table(rows)
            table.add(*rows)
            _draw(out / "memory.png", table.rows)
        print_table(table.rows)
        print(f"results: {out}")

    def _check(self) -> None:
        if not memory_case.PEAK_RESET.exists():
            raise ValueError(
                f"the peak of a process's memory is read from Linux's "
                f"{memory_case.PEAK_RESET}, which this system does not have; measure "
                "on Linux"
            )
        able = [n for n, k in AGENTS.items() if "pairs_per_chunk" in _names(k)]
        for agent in self.agent:
            if agent not in able:
                raise ValueError(unknown_name("agent in chunks", agent, able))
        check_population(self.num_pairs, 1.0)
        check_truncation_length(self.truncation_length, self.horizon)
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds} must be at least 1; use 2")
        for env in self.env:
            rollout, _ = make_system(env, min(self.parameters), self.horizon)
            if not rollout.can_copy:
                raise ValueError(
                    f"simulations of {env} cannot be copied, so there are no chunks of "
                    "them; use a native task, such as swimmer"
                )

    def _cases(self) -> Iterator[list[Case]]:
        """The cases of one agent and one D, smallest first."""
        for parameters in self.parameters:
            for env in self.env:
                for agent in self.agent:
                    sizes = self.num_pairs, self.truncation_length, self.horizon
                    fits = 2 * self.num_pairs * parameters <= CHUNK_FLOATS
                    chunks = [self.num_pairs, 1, *([] if fits else [None])]
                    yield [Case(env, agent, parameters, c, *sizes) for c in chunks]


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def _in_a_process(cases: list[Case], rounds: int) -> list[Row]:
    """Run `memory_case.work` in a separate process, which Ctrl-C ends."""
    command = [sys.executable, "-m", memory_case.__name__, str(rounds)]
    done = subprocess.run(
        command,
        input=json.dumps([asdict(case) for case in cases]),
        text=True,
        stdout=subprocess.PIPE,
        process_group=0,
    )
    if done.returncode:
        raise ValueError(
            f"{cases[0]} ended with status {done.returncode}; is it too large?"
        )
    return json.loads(done.stdout.splitlines()[-1])


def _draw(path: Path, rows: list[Row]) -> None:
    envs, agents = (
        list(dict.fromkeys(row[name] for row in rows)) for name in ("env", "agent")
    )
    figure = new_figure(2.8 * len(agents) + 0.4, 2.8 * len(envs) + 0.4)
    panels = figure.subplots(
        len(envs), len(agents), sharex=True, sharey=True, squeeze=False
    )
    for env, line in zip(envs, panels, strict=True):
        for agent, axes in zip(agents, line, strict=True):
            own = [row for row in rows if (row["env"], row["agent"]) == (env, agent)]
            _draw_panel(axes, own)
            axes.set_title(f"{agent}, {env}", fontsize=9)
            axes.set_yscale("log")
            axes.set_xscale("log")
            axes.grid(alpha=0.3)
        line[0].set_ylabel("peak [MiB]")
    for axes in panels[-1]:
        axes.set_xlabel("parameters D")
    panels[0, 0].legend(fontsize=7)
    figure.savefig(path)


def _draw_panel(axes: Any, rows: list[Row]) -> None:
    if not rows:
        return
    every = rows[0]["particles"] // 2
    for pairs, label in ((every, "all pairs at once"), (1, "one pair at a time")):
        chosen = [row for row in rows if row["pairs_at_once"] == pairs]
        peaks = [max(row["peak_bytes"], 1) / 2**20 for row in chosen]
        sizes = [row["parameters"] for row in chosen]
        axes.plot(sizes, peaks, "o-", markersize=3, label=label)
    population = [row["population_bytes"] / 2**20 for row in rows]
    axes.plot([r["parameters"] for r in rows], population, "k:", label="N D floats")
