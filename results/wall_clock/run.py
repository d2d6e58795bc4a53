"""Return against wall time: this package beside ARS, PPO, SAC and PGPE with ClipUp.

    python results/wall_clock/run.py [--minutes 20] [--seeds 0 1 2] [--cores 1]

Runs of curves.csv that are complete are not made again: the same command continues
where it was stopped, and begins the runs that it was in again. The first start makes
the peers' environment. Linux.
"""

import argparse
import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peers_environment import peers_python
from protocol import COLUMNS, FINAL_EPISODES, TASKS, Run
from report import write_report

from pes_rl.run_folder.provenance import recording_maker
from pes_rl.runtime.command_line import finish, run_command

HERE = Path(__file__).parent
RUNS = HERE.parents[1] / "runs" / "wall_clock"  # Git ignores it.
ARMS = ("pes_rl", "ars", "ppo", "sac", "pgpe")


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    arms: Sequence[str]
    tasks: Sequence[str]
    seeds: Sequence[int]
    minutes: float
    cores: int
    out: Path
    runs: Path


def read_options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=20.0, help="of each run")
    parser.add_argument(
        "--cores",
        type=int,
        default=1,
        choices=(1, 2),
        help="1: two runs side by side, on a core each; 2: one run at a time on both",
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument(
        "--runs", type=Path, default=RUNS, help="folder of logs and of the environment"
    )
    return Options(**vars(parser.parse_args()))


def make_study(options: Options) -> None:
    """Make the runs that are missing, and the report."""
    options.out.mkdir(parents=True, exist_ok=True)
    curves = (options.out / "curves.csv").absolute()
    complete = keep_complete(curves, options)
    needs_peers = set(options.arms) != {"pes_rl"}
    peers = peers_python(options.runs.absolute() / "venv") if needs_peers else ""
    runs = [
        Run(
            arm=arm,
            task=task,
            seed=seed,
            minutes=options.minutes,
            cores=options.cores,
            curves=str(curves),
            folder=str(options.runs.absolute() / f"{arm}-{task}-s{seed}"),
        )
        # Seeds outermost: stopped early, it has all arms on the first ones.
        for seed in options.seeds
        for task in options.tasks
        for arm in options.arms
    ]
    missing = [r for r in runs if (r.arm, r.task, str(r.seed)) not in complete]
    places = find_places(options.cores)
    hours = -(-len(missing) // len(places)) * options.minutes / 60
    print(f"{len(missing)} of {len(runs)} runs to make, some {hours:.1f} h", flush=True)
    with recording_maker(options.out):
        try:
            make_runs(missing, places, peers)
        finally:
            write_report(curves, options.out)


def keep_complete(curves: Path, options: Options) -> set[tuple[str, str, str]]:
    """Drop the rows of runs that were stopped; arm, task and seed of the others.

    Raises:
        ValueError: If the runs had other minutes or cores.
    """
    rows: list[dict[str, str]] = []
    if curves.exists():
        with curves.open(newline="") as file:
            rows = list(csv.DictReader(file))
    protocol = {"minutes": f"{options.minutes:g}", "cores": str(options.cores)}
    for name, value in protocol.items():
        if others := {row[name] for row in rows} - {value}:
            raise ValueError(
                f"{curves} has runs with {name} = {min(others)}; use --{name} "
                f"{min(others)}, or another folder, by --out"
            )
    last = str(FINAL_EPISODES)
    complete = {_key(row) for row in rows if row["episodes"] == last}
    kept = [row for row in rows if _key(row) in complete]
    if not curves.exists() or len(kept) < len(rows):
        # Replaced as a whole: a kill in the middle of writing loses no run.
        new = curves.with_suffix(".new")
        with new.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
        new.replace(curves)
    return complete


def _key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["arm"], row["task"], row["seed"]


def find_places(cores: int) -> list[set[int]]:
    """The processor cores of each run of those side by side.

    Raises:
        ValueError: If this process has fewer than a run needs.
    """
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < cores:
        raise ValueError("this process has one CPU; use --cores 1")
    return [set(cpus)] if cores == 2 else [{cpu} for cpu in cpus]


def make_runs(runs: Sequence[Run], places: Sequence[set[int]], peers: str) -> None:
    """Make the runs, one in each place at a time."""
    waiting = deque(runs)
    working: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}
    try:
        while waiting or working:
            for place, cpus in enumerate(places):
                if place in working:
                    run, process = working[place]
                    if process.poll() is None:
                        continue
                    end_group(process)
                    say_end(run, process.returncode)
                    del working[place]
                if waiting:
                    run = waiting.popleft()
                    working[place] = run, start(run, cpus, peers)
            time.sleep(0.5)
    finally:
        for _, process in working.values():
            end_group(process)


def start(run: Run, cpus: set[int], peers: str) -> "subprocess.Popen[bytes]":
    """Start the process of a run on its cores."""
    folder = Path(run.folder)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    folder.mkdir(parents=True)
    ours = run.arm == "pes_rl"
    python, program = (sys.executable, "ours.py") if ours else (peers, "peers.py")
    number = str(run.cores)
    libraries = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    environment = {
        **os.environ,
        **{f"{name}_NUM_THREADS": number for name in libraries},
        "NPROC": number,  # XLA's
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # Every run compiles.
        "RAY_USAGE_STATS_ENABLED": "0",  # of PGPE's actors
    }
    if not ours:
        environment.pop("PYTHONPATH", None)
    print(f"{time.strftime('%H:%M:%S')} {run.name} begins", flush=True)
    with (folder / "log.txt").open("wb") as log, only_on(cpus):
        return subprocess.Popen(
            [python, str(HERE / program), run.start_now().as_argument()],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone.
        )


@contextlib.contextmanager
def only_on(cpus: set[int]) -> Iterator[None]:
    """Let processes that are started in the body have these CPUs alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a run's process, with those that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def say_end(run: Run, status: int) -> None:
    """Print how a run ended."""
    what = "done"
    if status != 0:
        what = f"failed with status {status}: {run.folder}/log.txt"
    print(f"{time.strftime('%H:%M:%S')} {run.name} {what}", flush=True)


def main() -> int:
    """Make the study."""
    options = read_options()
    return run_command(
        lambda: make_study(options),
        lambda: "stopped; the same command continues with the runs that are missing",
        compilation_cache=False,
    )


if __name__ == "__main__":
    finish(main())
