"""Time and memory of one update of every estimator: `cost`.

The system has as many states as parameters, so that both grow together: D cells

    s = tanh(theta s + 1),    L = mean of s^2

A step costs of the order of D operations. Theory, for N particles, unrolls of K steps
and episodes of T:

    estimator                         time       memory
    pes gpes nres truncated-es        N K D      N D
    pes-analytic                      N K D      N D + N K D, of the mean unroll
    es ars random-search              N T D      N D
    tbptt, uoro                       N K D      N K D
    bptt                              N T D      N T D
    rtrl                              N K D^2    N D^2

Measured is the time of a compiled update, the shortest of several, and the memory that
XLA plans for it: arguments, results and what lies between, of its buffers together.
Constant parts show where a size is small: drawing noise and bookkeeping cost N D and
N K, whatever a step costs.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.agents import AGENT_NAMES, AGENTS
from pes_rl.analysis.output import Row, Table, new_figure, print_table, write_csv
from pes_rl.envs import DeviceRollout
from pes_rl.envs.names import unknown_name
from pes_rl.runtime.progress import Progress

# Exponents of K, D and N in theory, of time and of memory.
_ORDERS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "pes": ((1, 1, 1), (0, 1, 1)),
    "gpes": ((1, 1, 1), (0, 1, 1)),
    "nres": ((1, 1, 1), (0, 1, 1)),
    "truncated-es": ((1, 1, 1), (0, 1, 1)),
    "pes-analytic": ((1, 1, 1), (1, 1, 1)),
    "es": ((0, 1, 1), (0, 1, 1)),
    "ars": ((0, 1, 1), (0, 1, 1)),
    "random-search": ((0, 1, 1), (0, 1, 1)),
    "tbptt": ((1, 1, 1), (1, 1, 1)),
    "uoro": ((1, 1, 1), (1, 1, 1)),
    "bptt": ((0, 1, 1), (0, 1, 1)),
    "rtrl": ((1, 2, 1), (0, 2, 1)),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of one measurement: unroll K, parameters D, particles N."""

    unroll: int
    parameters: int
    particles: int


@dataclass(frozen=True)
class Cells:
    """A problem of D independent cells with one parameter each."""

    size: int

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.zeros(self.size)

    def step(
        self, theta: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        state = jnp.tanh(theta * state + 1)
        return state, (state**2).mean(), jnp.array(False)


@dataclass(frozen=True)
class Cost:
    """Time and memory of one update as K, D and N grow, one at a time."""

    agent: tuple[str, ...] = tuple(AGENT_NAMES)
    """Estimators."""
    truncation_length: int = 8
    """Steps K of an unroll where it is not varied."""
    parameters: int = 64
    """Parameters D where they are not varied."""
    num_particles: int = 128
    """Particles N where they are not varied; an even number."""
    horizon: int = 128
    """Steps T of an episode, which es, ars, random-search and bptt play whole."""
    factors: tuple[int, ...] = (1, 4, 16)
    """What K, D and N are multiplied by, each in turn."""
    repeats: int = 5
    """Timed updates, of which the shortest counts."""
    logdir: str = "runs/cost"
    """Folder of cost.csv, orders.csv and cost.png."""

    def run(self) -> None:
        """Measure, print and write.

        Raises:
            ValueError: If an agent is unknown or a size cannot be.
        """
        self._check()
        out = Path(self.logdir)
        rows = self._measure_all(Table(out / "cost.csv"))
        orders = [row for agent in self.agent for row in growth(agent, rows)]
        write_csv(out / "orders.csv", orders)
        _draw(out / "cost.png", rows)
        print_table(orders)
        print(f"results: {out}")

    def _check(self) -> None:
        for agent in self.agent:
            if agent not in _ORDERS:
                raise ValueError(unknown_name("agent", agent, list(_ORDERS)))
        sizes = (
            self.truncation_length,
            self.parameters,
            self.num_particles,
            *self.factors,
        )
        if min(*sizes, self.repeats) < 1 or self.num_particles % 2:
            raise ValueError(
                "truncation_length, parameters, factors and repeats must be at least "
                f"1, and num_particles={self.num_particles} even, for they come in "
                "pairs"
            )
        longest = self.truncation_length * max(self.factors)
        if longest > self.horizon:
            raise ValueError(
                f"unrolls of up to {longest} steps are longer than the horizon of "
                f"{self.horizon}; use smaller factors"
            )
        if len(set(self.factors)) < 2:
            raise ValueError(f"factors={self.factors} must be at least two, apart")

    def _sizes(self) -> Iterator[tuple[str, Sizes]]:
        base = Sizes(self.truncation_length, self.parameters, self.num_particles)
        for name in ("unroll", "parameters", "particles"):
            for factor in self.factors:
                yield name, replace(base, **{name: factor * getattr(base, name)})

    def _measure_all(self, table: Table) -> list[Row]:
        """Measure all cases and add their rows to the table, with progress."""
        jobs = [(agent, *job) for agent in self.agent for job in self._sizes()]
        measured: dict[tuple[str, Sizes], tuple[float, int]] = {}
        number = len({(agent, sizes) for agent, _, sizes in jobs})
        with Progress("cost", number, "measurements") as progress:
            for agent, name, sizes in jobs:
                if (agent, sizes) not in measured:
                    measured[agent, sizes] = self._measure(agent, sizes)
                    what = f"K={sizes.unroll} D={sizes.parameters} N={sizes.particles}"
                    seconds, size = measured[agent, sizes]
                    note = f"{1e3 * seconds:.3g} ms, {size / 1e6:.3g} MB"
                    progress.update(len(measured), f"{agent} {what}: {note}")
                seconds, size = measured[agent, sizes]
                row = {"agent": agent, "varied": name, **asdict(sizes)}
                table.add({**row, "seconds": seconds, "bytes": size})
        return table.rows

    def _measure(self, agent: str, sizes: Sizes) -> tuple[float, int]:
        """Seconds and bytes of one update."""
        rollout = DeviceRollout(Cells(sizes.parameters), self.horizon)
        estimator = _make_agent(agent, sizes)
        theta = jnp.full(sizes.parameters, 0.5)
        key = jax.random.key(0)
        state = estimator.init(rollout, theta, key)

        def update(theta: jax.Array, state: Any, key: jax.Array) -> Any:
            return estimator.estimate(rollout, theta, state, key)

        compiled = jax.jit(update).lower(theta, state, key).compile()
        jax.block_until_ready(compiled(theta, state, key))
        seconds = []
        for _ in range(self.repeats):
            begun = time.perf_counter()
            jax.block_until_ready(compiled(theta, state, key))
            seconds.append(time.perf_counter() - begun)
        return min(seconds), planned_bytes(compiled)


def planned_bytes(compiled: Any) -> int:
    """Bytes of a compiled function's arguments, results and intermediate buffers."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _make_agent(agent: str, sizes: Sizes) -> Any:
    kind: Any = AGENTS[agent]
    options = {
        "num_pairs": sizes.particles // 2,
        "num_particles": sizes.particles,
        "num_top_pairs": sizes.particles // 2,
        "truncation_length": sizes.unroll,
        "noise_period": 2 * sizes.unroll,
        "search_radius": 1.0,
        "sigma": 0.1,
    }
    names = kind.__dataclass_fields__
    return kind(**{name: value for name, value in options.items() if name in names})


def growth(agent: str, rows: list[Row]) -> list[Row]:
    """Powers with which an agent's time and memory grow, beside those of theory.

    The power is that between the two largest sizes.
    """
    found = []
    for place, name in enumerate(("unroll", "parameters", "particles")):
        own = [r for r in rows if r["agent"] == agent and r["varied"] == name]
        *_, before, last = sorted(own, key=lambda row: row[name])
        factor = np.log(last[name] / before[name])
        row: Row = {"agent": agent, "varied": name}
        for order, quantity in zip(_ORDERS[agent], ("seconds", "bytes"), strict=True):
            power = np.log(last[quantity] / before[quantity]) / factor
            row[f"power_of_{quantity}"] = float(power)
            row[f"theory_of_{quantity}"] = order[place]
        found.append(row)
    return found


def _draw(path: Path, rows: list[Row]) -> None:
    figure = new_figure(12, 7)
    labels = {
        "unroll": "steps K of an unroll",
        "parameters": "parameters D, states too",
        "particles": "particles N",
    }
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    for place, (quantity, varied) in enumerate(
        (q, v) for q in ("seconds", "bytes") for v in labels
    ):
        axes = figure.add_subplot(2, 3, place + 1)
        for number, agent in enumerate(agents):
            own = [r for r in rows if (r["agent"], r["varied"]) == (agent, varied)]
            axes.loglog(
                [row[varied] for row in own],
                [row[quantity] for row in own],
                "o-" if number < 6 else "s--",
                color=f"C{number % 6}",
                markersize=3,
                label=agent,
            )
        sizes = sorted({row[varied] for row in rows if row["varied"] == varied})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel(labels[varied])
        if varied == "unroll":
            axes.set_ylabel(f"{quantity} of an update")
        axes.grid(alpha=0.3)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6)
    figure.savefig(path)
