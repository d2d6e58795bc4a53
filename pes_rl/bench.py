"""Throughput as ratios in one run: `python -m pes_rl.bench --env swimmer`.

A machine's speed varies from minute to minute, so only engines measured side by side
compare. Each is warmed up first (compiled, its processes started); then all are
measured in turn, round after round, so that whatever else the machine does hits each
alike. Steps/s are medians over the rounds, ratios are medians of the rounds' ratios.

`pes_rl` is the rollout that training runs, policy and bookkeeping included. On a
device it is compared with `bare physics scan`, a jitted `lax.scan` over the vmapped
step from the same states on the same actions; one in closed form (`jax:NAME`) also with
the same rollout of native MuJoCo's and of Brax's task of that name, and with
`MJX physics scan`, the bare physics of MuJoCo's own JAX engine. Of an unrolled problem
`pes_rl` is whole updates of `pes` with the task's settings, as many in a jitted call as
training runs; `pes_rl unrolls` are their rollouts alone, `bare unrolls` a scan over the
problem's vmapped step that sums the losses, and `PES by hand` updates as one writes
them for a single problem whose episodes all end together: without early ends,
schedules and reports. `compile` is the first run's time less that of the next. A native
MuJoCo task is compared with:

* `mujoco.batch open loop`, the physics alone as the engine runs it, from the same
  states on the same controls; only the few episodes that end on the way make the
  trajectories differ. `mujoco.batch as it comes` is the same with what the engine
  switches off: the profiler, and looking for contacts or islands where none can be.
* `gymnasium sync` and `async`, Gymnasium's vector environments on random actions drawn
  beforehand; async with a process for each environment (64 at most), and again with as
  many of each as there are threads. The fastest of them is the one to beat.
* `envpool`, where it is installed, on such actions too.
"""

import json
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pes_rl.benchmarks.agreement import measure_agreement
from pes_rl.benchmarks.engines import Row, Run, Size, make_engines
from pes_rl.benchmarks.unrolled import unrolled_engines
from pes_rl.envs.names import NATIVE_NAMES, environment_names, is_unrolled, unknown_name
from pes_rl.graphics.figures import draw_speeds
from pes_rl.runtime.command_line import finish, read_options, run_command
from pes_rl.runtime.multihost import check_jax_backend
from pes_rl.runtime.progress import Progress

Measured = tuple[str, list[Row], np.ndarray]
"""An environment, the rows of its table, and how many times as fast `pes_rl` is."""


@dataclass(frozen=True)
class BenchConfig:
    """Measure throughput against other engines, side by side."""

    env: tuple[str, ...] = ("swimmer",)
    """Environments: native MuJoCo tasks, jax:NAME, brax:NAME or unrolled:NAME; one
    table each, and of several native tasks one of all."""
    num_particles: tuple[int, ...] = (64,)
    """Environments stepped together, even, as particles come in pairs; one table for
    each number."""
    num_threads: int = 0
    """Threads (or processes) of the host engines; 0 takes one for every CPU."""
    seconds: float = 1.0
    """Least time of one measurement of one engine."""
    rounds: int = 5
    """Measurements of each engine."""
    backend: str | None = None
    """Physics backend of a Brax environment."""
    env_kwargs: str = "{}"
    """Options of an unrolled problem, as a JSON object."""
    peers: bool = True
    """Measure other engines too; else the closed loop and its own bare physics."""
    json: Path | None = None
    """File to write the rows to."""
    figure: Path | None = None
    """PNG to draw steps/s against particles in, of several numbers of particles."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    config = read_options(BenchConfig, arguments, "bench")
    measured: list[Measured] = []
    return run_command(
        lambda: _measure_all(config, measured),
        lambda: _kept(config, measured),
        compilation_cache=False,
    )


def _measure_all(config: BenchConfig, measured: list[Measured]) -> None:
    """Measure every environment and size; `measured` holds the tables so far."""
    _check(config)
    for env in config.env:
        for num_particles in config.num_particles:
            measured.append((env, *_bench(config, env, num_particles)))
            _write(config, [row for _, rows, _ in measured for row in rows])
    if len(measured) > 1:
        _print_summary(measured)


def _kept(config: BenchConfig, measured: list[Measured]) -> str:
    """The line of an interrupted run: what is measured and where it is written."""
    files = [str(path) for path in (config.json, config.figure) if path is not None]
    kept = f", written to {' and '.join(files)}" if files and measured else ""
    return f"stopped; whole tables measured: {len(measured)}{kept}"


def _write(config: BenchConfig, rows: list[Row]) -> None:
    """Write what is measured so far, so that an interruption loses nothing of it."""
    if config.json is not None:
        config.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))
    if config.figure is not None:
        draw_speeds(config.figure, _by_engine(rows))


def _by_engine(rows: list[Row]) -> dict[str, dict[int, float]]:
    """Steps/s at each number of particles, by environment and engine."""
    speeds: dict[str, dict[int, float]] = {}
    for row in rows:
        of_engine = speeds.setdefault(f"{row.env}, {row.engine}", {})
        of_engine[row.particles] = row.steps_per_second
    return speeds


def _bench(
    config: BenchConfig, env: str, num_particles: int
) -> tuple[list[Row], np.ndarray]:
    """Measure the engines of one environment at one size, and print their table.

    Returns:
        The rows, `pes_rl` first, and how many times as fast as each it is.
    """
    with ExitStack() as stack:
        size = Size(num_particles, config.num_threads or os.cpu_count() or 1)
        if is_unrolled(env):
            engines = list(unrolled_engines(env, num_particles, config.env_kwargs))
        else:
            engines = list(
                make_engines(env, size, config.backend, stack, peers=config.peers)
            )
        compile_seconds, rates = _measure(engines, config)
    speeds = np.median(rates, axis=0).tolist()
    rows = [
        replace(row, steps_per_second=speed, compile_seconds=seconds)
        for (row, _), speed, seconds in zip(
            engines, speeds, compile_seconds, strict=True
        )
    ]
    ratios = np.median(rates[:, :1] / rates, axis=0)
    _print_table(rows, ratios)
    return rows, ratios


def _check(config: BenchConfig) -> None:
    check_jax_backend()
    known = environment_names()
    for env in config.env:
        if env not in known:
            raise ValueError(unknown_name("environment", env, known))
        if config.env_kwargs != "{}" and not is_unrolled(env):
            raise ValueError(
                f"env_kwargs={config.env_kwargs!r} has no meaning for {env}; it is for "
                "unrolled:NAME, drop it"
            )
    for number in config.num_particles:
        if number < 2 or number % 2:
            raise ValueError(f"num_particles={number} is not even; use 64")
    for name in ("seconds", "rounds"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name}={getattr(config, name)} must be above 0; use 1")
    if config.figure is not None and len(config.num_particles) < 2:
        raise ValueError("figure is of several num_particles; use 64 256 1024")
    for name in ("json", "figure"):
        path = getattr(config, name)
        try:
            if path is not None:
                path.open("a").close()
        except OSError as error:
            raise ValueError(f"cannot write {name}={str(path)!r}: {error}") from error


def _measure(
    engines: list[tuple[Row, Run]], config: BenchConfig
) -> tuple[list[float], np.ndarray]:
    """Seconds of compilation of each engine, and steps/s in each round [rounds, E]."""
    compile_seconds = [_seconds(run) - _seconds(run) for _, run in engines]
    rates = np.zeros((config.rounds, len(engines)))
    with Progress(f"bench {engines[0][0].env}", rates.size, "measurements") as progress:
        for done, (k, i) in enumerate(np.ndindex(rates.shape), start=1):
            row, run = engines[i]
            steps, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < config.seconds:
                run()
                steps += row.steps * row.particles
            rates[k, i] = steps / elapsed
            progress.update(done, f"{row.engine}: {rates[k, i]:,.0f} steps/s")
    return compile_seconds, rates


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _print_table(rows: list[Row], ratios: np.ndarray) -> None:
    table = Table("engine", title=f"{rows[0].env}, environment steps per second")
    for column in ("particles", "threads", "compile", "steps/s", "pes_rl is"):
        table.add_column(column, justify="right")
    for row, ratio in zip(rows, ratios, strict=True):
        speed = f"{row.steps_per_second:,.0f}"
        on_device = row.threads is None
        compiled = f"{row.compile_seconds:.1f} s" if on_device else "-"
        sizes = str(row.particles), "-" if on_device else str(row.threads)
        table.add_row(row.engine, *sizes, compiled, speed, f"{ratio:.2f} times")
    Console().print(table)


_PEERS = {
    "mujoco.batch": "the open loop",
    "gymnasium": "Gymnasium's best",
    "envpool": "EnvPool",
}


def _print_summary(measured: list[Measured]) -> None:
    """One line a native task, in Markdown, so that it can be kept."""
    measured = [table for table in measured if table[0] in NATIVE_NAMES]
    if not measured:
        return
    titles = (f"times {title}" for title in _PEERS.values())
    titles = ("task", "largest difference from Gymnasium", "steps/s", *titles)
    lines = [titles, ["---"] * len(titles)]
    for env, rows, ratios in measured:
        times = {peer: np.inf for peer in _PEERS}
        for row, ratio in zip(rows[1:], ratios[1:], strict=True):
            peer = row.engine.split()[0]
            times[peer] = min(times[peer], ratio)
        cells = ("-" if np.isinf(t) else f"{t:.2f}" for t in times.values())
        difference = f"{measure_agreement(env).difference:.0e}"
        lines.append((env, difference, f"{rows[0].steps_per_second:,.0f}", *cells))
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    finish(main())
