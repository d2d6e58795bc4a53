"""Brax's own ES and ARS trainers on tasks, seeds and budget of `study.toml`.

    python results/brax/peers.py [--seeds 0 1 2] [--tasks TASK ...]

writes peers.csv beside this file, one row for each run: the return at its last
evaluation, of 32 episodes, and when that was. ES has the network of the study (two
layers of 16), ARS the linear policy that it is made for; both have 8 directions, as the
study has 8 pairs, and normalised observations. These trainers simulate 1000 steps an
episode and count those before its end, as `pes_rl` does.
"""

import argparse
import csv
import functools
import time
from pathlib import Path
from typing import Any

from brax import envs, fluid
from brax.training.agents.ars import train as ars
from brax.training.agents.es import networks as es_networks, train as es

from pes_rl.envs.brax import repair_fluid
from pes_rl.run_folder.provenance import recording_maker

TASKS = (
    "inverted_pendulum",
    "inverted_double_pendulum",
    "reacher",
    "swimmer",
    "hopper",
)
BUDGET = 200_000
BACKENDS = {"swimmer": "generalized"}  # It has no other.
NETWORK = functools.partial(es_networks.make_es_networks, hidden_layer_sizes=(16, 16))
TRAINERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Brax ES": (
        es.train,
        {
            "population_size": 8,
            "learning_rate": 0.05,
            "perturbation_std": 0.1,
            "fitness_shaping": es.FitnessShaping.CENTERED_RANK,
            "deterministic_eval": True,
            "network_factory": NETWORK,
        },
    ),
    "Brax ARS": (
        ars.train,
        {
            "number_of_directions": 8,
            "top_directions": 4,
            "step_size": 0.1,
            "exploration_noise_std": 0.1,
        },
    ),
}
COLUMNS = ["trainer", "task", "seed", "timesteps", "return", "seconds"]


def train(name: str, task: str, seed: int) -> list[Any]:
    """Train once; the row of the last evaluation."""
    trainer, settings = TRAINERS[name]
    start = time.monotonic()
    row: list[Any] = []

    def record(steps: int, metrics: Any) -> None:
        spent = time.monotonic() - start
        reward = float(metrics["eval/episode_reward"])
        row[:] = [name, task, seed, int(steps), f"{reward:.1f}", f"{spent:.0f}"]

    trainer(
        envs.get_environment(task, backend=BACKENDS.get(task, "spring")),
        num_timesteps=BUDGET,
        episode_length=1000,
        normalize_observations=True,
        num_evals=11,
        num_eval_envs=32,
        seed=seed,
        progress_fn=record,
        **settings,
    )
    return row


def main() -> None:
    """Train each trainer on each task and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    options = parser.parse_args()
    repair_fluid(fluid)  # Else Brax's swimmer does not run with a current JAX.
    out = Path(__file__).parent
    with recording_maker(out), (out / "peers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for task in options.tasks:
            for name in TRAINERS:
                for seed in options.seeds:
                    row = train(name, task, seed)
                    writer.writerow(row)
                    file.flush()
                    print(*row, flush=True)


if __name__ == "__main__":
    main()
