"""The published sizes of three studies, as far as the seconds given to each go.

    python results/published/run.py --parts schedule-loss:150 hyperparameters:180

Each part writes its tables as it goes, and stops where its seconds end: what was cut is
in them, as the number of the last update. `--tiny` is a try of every part, in seconds.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timed import Clock, Table, log, play, train

from pes_rl.agents import RandomSearch
from pes_rl.assembly.assemble import Assembly, assemble
from pes_rl.assembly.factories import make_environment
from pes_rl.config.train_config import make_config
from pes_rl.envs import DeviceRollout
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig
from pes_rl.run_folder.provenance import recording_maker

# In place of the published sizes, for a try.
TINY: dict[str, Any] = {"data": "generated", "batch_size": 4, "horizon": 20}
TINY_HIDDEN: dict[str, dict[str, Any]] = {
    "lr-schedule": {"hidden_sizes": (4,)},
    "mlp-hyperparameters": {"hidden_units": 4},
    "learned-optimizer": {"hidden_sizes": (4,)},
}


class Study:
    """Where the images lie, where tables go, and whether this is a try."""

    def __init__(self, data: Path, out: Path, tiny: bool) -> None:
        self.data, self.out, self.tiny = data, out, tiny

    def options(self, env: str, images: str, **others: Any) -> str:
        """The problem's options, as a JSON object."""
        name = env.removeprefix("unrolled:")
        options: dict[str, Any] = {"data": images, **others}
        if self.tiny:
            options |= {**TINY, **TINY_HIDDEN[name]}
        else:
            options["data_folder"] = str(self.data / images.replace("-", "_"))
        return json.dumps(options)

    def config(self, env: str, agent: str, env_kwargs: str, **settings: Any) -> Any:
        if self.tiny and "num_pairs" not in settings and agent != "random-search":
            settings["num_pairs"] = 2
        return make_config(env, agent, env_kwargs=env_kwargs, **settings)

    def schedule(self, clock: Clock, objective: str, updates: int) -> None:
        """Paths of PES and truncated ES, and the map of 40 x 40."""
        env = "unrolled:lr-schedule"
        options = self.options(env, "mnist", objective=objective)
        paths = Table(self.out / f"schedule_{objective}_paths.csv")
        for agent, part in (("pes", 0.36), ("truncated-es", 0.34)):
            assembly = assemble(self.config(env, agent, options))
            for at, thetas, _ in train(assembly, [0], clock.share(part), 20, updates):
                theta = thetas[0]
                log(agent, at, theta, clock)
                place = {"log_rate": theta[0], "log_decay": theta[1]}
                paths.add([{"agent": agent, "update": at, **place}])
        points = 4 if self.tiny else 40
        axes = [np.linspace(low, high, points) for low, high in SCHEDULE_RANGE]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        problem = make_environment(self.config(env, "pes", options), env)
        losses, steps = play(problem, jnp.array(grid, jnp.float32), clock, same=True)
        names = ("log_rate", "log_decay", "loss", "steps")
        rows = [(*place, loss, steps) for place, loss in zip(grid, losses, strict=True)]
        surface = Table(self.out / f"schedule_{objective}_surface.csv")
        surface.add([dict(zip(names, row, strict=True)) for row in rows])

    def hyperparameters(self, clock: Clock) -> None:
        """PES, truncated ES and random search on four seeds at once."""
        env = "unrolled:mlp-hyperparameters"
        options = self.options(env, "fashion-mnist")
        curves = Table(self.out / "hyperparameters.csv")
        seeds = [3, 5, 7, 11]
        problem = make_environment(self.config(env, "pes", options), env)
        for agent, part in (("pes", 0.3), ("truncated-es", 0.3), ("random", 0.2)):
            begun = clock.share(part)
            settings = self.config(env, "pes" if agent == "random" else agent, options)
            assembly = assemble(settings)
            every = 100
            if agent == "random":
                assembly = self._random_search(assembly, problem)
                every = 1
            history = list(train(assembly, seeds, begun, every, 30_000))
            log(agent, history[-1][0], "updates", clock)
            self._judge(curves, env, agent, problem, seeds, history, clock)

    def _random_search(self, assembly: Assembly, problem: Any) -> Assembly:
        """From the published ranges; a hundred configurations an update."""
        ranges = [search_range(name) for name in problem.parameter_names]
        low, high = np.array(ranges, np.float32).T
        number = 4 if self.tiny else 100
        agent = RandomSearch(number, jnp.array((high - low) / 2))
        rollout = DeviceRollout(problem, problem.horizon, problem.diverged_loss)
        learner = Learner(rollout, agent, OptimizerConfig("sgd", 1.0), 3_000_000)
        centre = jnp.array((high + low) / 2)
        return replace(assembly, learner=learner, init_theta=lambda key: centre)

    def learned_optimizer(self, clock: Clock) -> None:
        """PES, truncated ES and PES + analytic on one seed."""
        env = "unrolled:learned-optimizer"
        options = self.options(env, "fashion-mnist", objective="validation-loss")
        curves = Table(self.out / "learned_optimizer.csv")
        rates = {"pes": 3e-4, "truncated-es": 1e-3, "pes-analytic": 3e-4}
        for agent, rate in rates.items():
            config = self.config(
                env, agent, options, truncation_length=1, learning_rate=rate
            )
            begun = clock.share(0.28)
            history = list(train(assemble(config), [0], begun, 250, 50_000))
            log(agent, history[-1][0], "updates", clock)
            problem = make_environment(config, env)
            self._judge(curves, env, agent, problem, [0], history, clock, episodes=2)

    def _judge(
        self,
        curves: Table,
        env: str,
        agent: str,
        problem: Any,
        seeds: list[int],
        history: list[tuple[int, np.ndarray, np.ndarray]],
        clock: Clock,
        points: int = 20,
        episodes: int = 10,
    ) -> None:
        """Losses of whole fresh episodes at some of the thetas on the way."""
        chosen = np.unique(np.linspace(0, len(history) - 1, points).astype(int))
        kept = [history[i] for i in chosen]
        thetas = np.stack([theta for _, theta, _ in kept])  # [points, seeds, D]
        rows = thetas.reshape(-1, thetas.shape[-1]).repeat(episodes, 0)
        losses, steps = play(problem, jnp.array(rows), clock)
        means = losses.reshape(len(kept), len(seeds), episodes).mean(2)
        for (at, _, progress), row in zip(kept, means, strict=True):
            curves.add(
                [
                    {
                        "agent": agent,
                        "seed": seed,
                        "update": at,
                        "progress": float(share),
                        "loss": float(loss),
                        "steps": steps,
                    }
                    for seed, share, loss in zip(seeds, progress, row, strict=True)
                ]
            )


# Natural logarithms of the published ranges, of the first rate and of the decay.
SCHEDULE_RANGE = (
    (-3 * math.log(10), -0.5 * math.log(10)),
    (-2.2 * math.log(10), 2.2 * math.log(10)),
)


def search_range(name: str) -> tuple[float, float]:
    """Where the published random search draws a hyperparameter from."""
    if name.startswith("log learning rate"):
        return math.log(1e-8), math.log(10.0)
    low, high = 0.01, 0.999  # of a momentum, or of the share of a layer's units
    return math.log(low / (1 - low)), math.log(high / (1 - high))


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", required=True, metavar="PART:SECONDS")
    parser.add_argument("--data", type=Path, default=Path("."))
    parser.add_argument("--out", type=Path, default=Path("runs/published"))
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    study = Study(arguments.data, arguments.out, arguments.tiny)
    parts: dict[str, Callable[[Clock], None]] = {
        "schedule-loss": lambda c: study.schedule(c, "training-loss", 2000),
        "schedule-accuracy": lambda c: study.schedule(c, "validation-accuracy", 1000),
        "hyperparameters": study.hyperparameters,
        "learned-optimizer": study.learned_optimizer,
    }
    print(jax.devices(), jax.__version__, flush=True)
    with recording_maker(arguments.out):
        for part in arguments.parts:
            name, seconds = part.split(":")
            parts[name](Clock(float(seconds)))


if __name__ == "__main__":
    main()
