"""One run of this package by its command; `run.py` starts it."""

import json
import subprocess
import sys
import time
from pathlib import Path

from protocol import EPISODES, Record, Run, read_run

from pes_rl import load_policy
from pes_rl.run_folder.reader import read_curve


def make_command(run: Run, folder: Path) -> list[str]:
    """The command that trains: the task's defaults, its budget among them."""
    options = {
        "env": run.task,
        "seed": run.seed,
        "eval-episodes": EPISODES,
        "final-eval-episodes": EPISODES,
        "num-threads": run.cores,
        "logdir": folder,
    }
    pairs = [(f"--{name}", str(value)) for name, value in options.items()]
    return [sys.executable, "-m", "pes_rl.train", *(t for pair in pairs for t in pair)]


def add_new_rows(run: Run, record: Record, folder: Path, known: int) -> int:
    """Copy the evaluations after the first `known`; how many there are now."""
    columns = ("total_timesteps", "time_elapsed", "fps")
    returns = ("eval/mean_reward", "eval/std_reward")
    if not (folder / "progress.csv").exists() or not (folder / "config.json").exists():
        return known
    before = seconds_before(run, folder)
    curve = read_curve(folder, [*(f"time/{name}" for name in columns), *returns])
    rows = list(zip(*curve.values(), strict=True))
    for steps, seconds, speed, mean, std in rows[known:]:
        outside = seconds - (steps / speed if speed else 0.0)
        record.add(before + seconds, int(steps), mean, std, EPISODES, outside)
    return len(rows)


def seconds_before(run: Run, folder: Path) -> float:
    """Seconds before the log's clock, which starts once the settings are written."""
    return (folder / "config.json").stat().st_mtime - run.started


def main() -> None:
    """Train once."""
    run = read_run().start_now()  # The command's process starts here.
    folder = Path(run.folder) / "run"
    command = make_command(run, folder)
    print(*command, flush=True)
    process = subprocess.Popen(command)
    record, known = Record(run), 0
    while process.poll() is None and run.elapsed < run.seconds:
        time.sleep(min(1.0, max(0.0, run.seconds - run.elapsed)))
        known = add_new_rows(run, record, folder, known)
    process.terminate()
    if process.wait() not in (0, 143):
        sys.exit(f"error: the command ended with status {process.returncode}")
    if not (folder / "summary.json").exists():
        sys.exit("error: training had not begun when the minutes were over")
    add_new_rows(run, record, folder, known)
    summary = json.loads((folder / "summary.json").read_text())
    # Not when SIGTERM was sent: the updates between two rows of the log came to an end.
    seconds = seconds_before(run, folder) + summary["wall_seconds"]
    record.finish(load_policy(folder, "last"), summary["total_timesteps"], seconds)


if __name__ == "__main__":
    main()
