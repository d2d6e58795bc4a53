"""Policies from the beginning, middle and end of one run of noise reuse a task.

    python results/critics/policies.py [--tasks swimmer ...] [--budget N] [--out FOLDER]

writes FOLDER/TASK-STAGE.npz and FOLDER/TASK.json: steps, sigma and mean training return
of each stage. Each stage is the first row of the log after its share of the budget.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pes_rl
from pes_rl.run_folder.policy_files import save_policy

BUDGETS = {
    "swimmer": 200_000,
    "halfcheetah": 2_000_000,
    "hopper": 2_000_000,
    "inverted_double_pendulum": 1_000_000,
    "walker2d": 4_000_000,
}
STAGES = {"beginning": 0.05, "middle": 0.35, "end": 0.95}
FOLDER = Path(__file__).parent / "policies"


class Stages(pes_rl.Callback):
    """Saves the policy when the run passes each stage."""

    def __init__(self, task: str, budget: int, folder: Path) -> None:
        self.task, self.budget, self.folder = task, budget, folder
        self.saved: dict[str, dict[str, Any]] = {}

    def on_log(self, run: Any, row: Mapping[str, Any]) -> None:
        for stage, share in STAGES.items():
            if stage in self.saved or run.timesteps < share * self.budget:
                continue
            save_policy(self.folder / f"{self.task}-{stage}.npz", run.policy)
            self.saved[stage] = {
                "steps": run.timesteps,
                "sigma": round(float(row["train/sigma"]), 6),
                "return": round(float(row["rollout/ep_rew_mean"]), 1),
            }
            text = json.dumps(self.saved, indent=2)
            (self.folder / f"{self.task}.json").write_text(text + "\n")


def main() -> None:
    """Train on each task whose policies are not there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument("--budget", type=int, help="steps in place of the task's own")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for task in options.tasks:
        budget = options.budget or BUDGETS[task]
        if (options.out / f"{task}-end.npz").exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            pes_rl.train(
                task,
                "nres",
                seed=1900,
                total_timesteps=budget,
                eval_interval=10 * budget,
                checkpoint_interval=10 * budget,
                final_eval_episodes=8,
                log_interval=5,
                num_threads=1,
                logdir=Path(folder) / task,
                callbacks=[Stages(task, budget, options.out)],
            )


if __name__ == "__main__":
    main()
