"""Policies with and without memory on a cart-pole whose velocities are hidden.

    python results/recurrent/run.py [--seeds 0 1 2] [--out results/recurrent]

writes runs.csv: the mean return over 100 episodes of each policy and seed.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from masked_cartpole import MaskedCartPole

from pes_rl.assembly.assemble import Environments, assemble
from pes_rl.config.train_config import make_config
from pes_rl.run_folder.provenance import recording_maker
from pes_rl.training.trainer import Trainer

SETTINGS: dict[str, Any] = {
    "total_timesteps": 2_000_000,
    "num_pairs": 64,
    "truncation_length": 50,
    "sigma": 0.1,
    "learning_rate": 0.05,
    "optimizer": "adam",
    "normalize_returns": True,
    "normalize_observations": True,
    "eval_interval": 500_000,
    "checkpoint_interval": 100_000_000,
    "log_interval": 50,
}
POLICIES: dict[str, dict[str, Any]] = {
    "linear": {"policy": "linear"},
    "mlp": {"policy": "mlp", "hidden_sizes": (16, 16)},
    "gru": {"policy": "gru", "hidden_sizes": (8,)},
    "linear, velocities seen": {"policy": "linear"},
}


def train(name: str, seed: int, agent: str = "pes", **changes: Any) -> dict[str, Any]:
    """Train a policy of the table; the run's summary."""
    environment = MaskedCartPole(velocities=name.endswith("velocities seen"))
    settings = {**SETTINGS, **POLICIES[name], **changes}
    config = make_config("python:MaskedCartPole", agent, seed=seed, **settings)
    assembly = assemble(config, Environments(environment, environment))
    with tempfile.TemporaryDirectory() as folder:
        return Trainer(config, Path(folder), assembly=assembly).run().summary


def main() -> None:
    """Train each policy on each seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=range(3))
    parser.add_argument("--out", default=str(Path(__file__).parent))
    options = parser.parse_args()
    with recording_maker(Path(options.out)):
        measure(Path(options.out) / "runs.csv", options.seeds)


def measure(path: Path, seeds: Sequence[int]) -> None:
    """Write the table, row by row."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["policy", "seed", "final_return", "standard_deviation"])
        for name in POLICIES:
            for seed in seeds:
                start = time.process_time()
                summary = train(name, seed)
                final = [summary["final_return"], summary["final_return_std"]]
                writer.writerow([name, seed, *(f"{value:.1f}" for value in final)])
                file.flush()
                spent = time.process_time() - start
                print(f"{name}, seed {seed}: {final[0]:.1f} after {spent:.0f} s of CPU")


if __name__ == "__main__":
    main()
