"""Memory of an update of a large policy, all pairs at once or in chunks: `memory`.

The system is a single number, so that all that grows with D is the estimator's:

    s = mean of tanh(theta s + 1),    L = s^2

Each case runs in a process of its own. Measured is by how much its resident memory
peaks above what it held before the first update (Linux), and what XLA planned for the
compiled update: arguments, results and what lies between.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents import AGENTS
from pes_rl.agents.chunks import CHUNK_FLOATS, pairs_at_once
from pes_rl.analysis.cost import planned_bytes
from pes_rl.analysis.output import Row, new_figure, print_table, write_csv
from pes_rl.envs import DeviceRollout
from pes_rl.envs.registry import unknown_name


@dataclass(frozen=True)
class Number:
    """One number that D parameters move."""

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.zeros(())

    def step(
        self, theta: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        state = jnp.tanh(theta * state + 1).mean()
        return state, state**2, jnp.array(False)


@dataclass(frozen=True)
class Case:
    """One measurement."""

    agent: str
    parameters: int
    pairs_per_chunk: int | None
    num_pairs: int
    unroll: int
    horizon: int

    def measure(self) -> Row:
        """Run two updates in this process; peak and plan of them in bytes."""
        rollout = DeviceRollout(Number(), self.horizon)
        options = {**asdict(self), "truncation_length": self.unroll, "sigma": 0.1}
        kind: Any = AGENTS[self.agent]
        names = [field.name for field in fields(kind)]
        estimator = kind(**{n: v for n, v in options.items() if n in names})

        def update(theta: jax.Array, state: Any, key: jax.Array) -> Any:
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
            return gradient, state

        theta, key = jnp.full(self.parameters, 0.5), jax.random.key(0)
        state = estimator.init(rollout, theta, key)
        compiled = jax.jit(update).lower(theta, state, key).compile()
        kept = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        for step in range(2):
            _, state = jax.block_until_ready(
                compiled(theta, state, jax.random.key(step))
            )
        return {
            "agent": self.agent,
            "parameters": self.parameters,
            "particles": 2 * self.num_pairs,
            "pairs_at_once": pairs_at_once(
                rollout, self.pairs_per_chunk, self.num_pairs, self.parameters
            ),
            "population_bytes": 8 * self.num_pairs * self.parameters,
            "peak_bytes": _status("VmHWM") - before,
            "planned_bytes": planned_bytes(compiled),
            "kept_bytes": kept,
        }


def _status(name: str) -> int:
    """A line of this process's memory in /proc, in bytes."""
    (kilobytes,) = re.findall(
        rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text()
    )
    return 1024 * int(kilobytes)


@dataclass(frozen=True)
class Memory:
    """Memory of an update as D grows, all pairs at once and one at a time.

    And as many as the default takes, where these are fewer than all.
    """

    agents: tuple[str, ...] = ("pes", "nres", "es", "truncated-es")
    """Estimators that work in chunks."""
    parameters: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    """Parameters D."""
    num_pairs: int = 16
    """Antithetic pairs P."""
    unroll: int = 2
    """Steps K of an unroll."""
    horizon: int = 8
    """Steps T of an episode."""
    out: str = "runs/memory"
    """Folder of memory.csv and memory.png."""

    def run(self) -> None:
        """Measure, print and write.

        Raises:
            ValueError: If an agent is unknown or holds all pairs at once.
        """
        able = [n for n, k in AGENTS.items() if "pairs_per_chunk" in _names(k)]
        for agent in self.agents:
            if agent not in able:
                raise ValueError(unknown_name("agent in chunks", agent, able))
        rows = []
        for case in self._cases():
            rows.append(_in_a_process(case))
            print_table(rows[-1:])
        out = Path(self.out)
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "memory.csv", rows)
        _draw(out / "memory.png", rows)
        print_table(rows)
        print(f"results: {out}")

    def _cases(self) -> Iterator[Case]:
        for agent in self.agents:
            for parameters in self.parameters:
                sizes = self.num_pairs, self.unroll, self.horizon
                for pairs in (self.num_pairs, 1):
                    yield Case(agent, parameters, pairs, *sizes)
                if 2 * self.num_pairs * parameters > CHUNK_FLOATS:
                    yield Case(agent, parameters, None, *sizes)


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def _in_a_process(case: Case) -> Row:
    command = [sys.executable, "-m", "pes_rl.analysis.memory"]
    text = json.dumps(asdict(case))
    done = subprocess.run(command, input=text, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        raise ValueError(
            f"{case} ended with status {done.returncode}; is it too large?"
        )
    return json.loads(done.stdout.splitlines()[-1])


def _draw(path: Path, rows: list[Row]) -> None:
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    figure = new_figure(3.2 * len(agents), 3.4)
    for place, agent in enumerate(agents):
        axes = figure.add_subplot(1, len(agents), place + 1)
        own = [row for row in rows if row["agent"] == agent]
        every = own[0]["particles"] // 2
        for pairs, label in ((every, "all pairs at once"), (1, "one pair at a time")):
            chosen = [row for row in own if row["pairs_at_once"] == pairs]
            sizes = [row["parameters"] for row in chosen]
            peaks = [max(row["peak_bytes"], 1) / 2**20 for row in chosen]
            axes.loglog(sizes, peaks, "o-", markersize=3, label=label)
        population = [row["population_bytes"] / 2**20 for row in own]
        sizes = [row["parameters"] for row in own]
        axes.loglog(sizes, population, "k:", label="N D floats")
        axes.set_title(agent)
        axes.set_xlabel("parameters D")
        axes.set_ylim(bottom=0.1)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("peak of an update [MiB]")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path)


if __name__ == "__main__":
    print(json.dumps(Case(**json.loads(sys.stdin.read())).measure()))
