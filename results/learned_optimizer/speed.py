"""Speed of a study's inner steps, beside bare unrolls and a product of matrices.

    python results/learned_optimizer/speed.py results/learned_optimizer/fashion_mnist

prints inner steps a second of whole updates of PES and of bare unrolls, which have
nothing around them, both of the study's inner problem with its number of particles; and
the operations a second of both beside those of a product of two matrices of 2048 rows,
which is about what the cores can do. All are measured in turn, and the numbers are
medians. `taskset -c 0` before the command measures one core.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from adam import study_problem
from inner_training import num_weights

from pes_rl.analysis.output import print_table
from pes_rl.benchmarks.engines import Run
from pes_rl.benchmarks.unrolled import unrolled_engines
from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer
from pes_rl.envs.unrolled.update_rule import NUM_WEIGHT_FEATURES
from pes_rl.studies.study import read_study

SIZE = 2048


def operations(problem: LearnedOptimizer) -> int:
    """Additions and multiplications of an inner step's products of matrices.

    Of the network: the pass of the loss, and forth and back on the minibatch that is
    learnt from, without the gradient of the images. Of the rule: its layers, without
    the part for the time, at every weight.
    """
    layers = [n * m for n, m in pairwise(problem.layer_sizes(problem.hidden_sizes))]
    network = problem.batch_size * (4 * sum(layers) - layers[0])
    sizes = (NUM_WEIGHT_FEATURES, *problem.rule.sizes[1:])
    rule = num_weights(problem) * sum(n * m for n, m in pairwise(sizes))
    return 2 * (network + rule)


def measure(runs: dict[str, Run], rounds: int, seconds: float) -> dict[str, float]:
    """Calls a second of each, medians of rounds in which all have their turn."""
    for run in runs.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            calls, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < seconds:
                run()
                calls += 1
            rates[name].append(calls / elapsed)
    return {name: float(np.median(rate)) for name, rate in rates.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    config = read_study(options.folder / "study.toml").runs[0].config
    assert config.num_pairs is not None
    arguments = config.env, 2 * config.num_pairs, config.env_kwargs
    engines = {row.engine: (row, run) for row, run in unrolled_engines(*arguments)}
    product = jax.jit(lambda a: a @ a)
    ones = jnp.ones((SIZE, SIZE), jnp.float32)
    runs = {name: engines[name][1] for name in ("bare unrolls", "pes_rl")}
    runs["product"] = lambda: jax.block_until_ready(product(ones))
    rates = measure(runs, options.rounds, options.seconds)
    each = operations(study_problem(options.folder))
    peak = rates["product"] * 2 * SIZE**3
    rows = []
    for name in ("bare unrolls", "pes_rl"):
        row = engines[name][0]
        steps = rates[name] * row.steps * row.particles
        rows.append(
            {
                "engine": name,
                "inner steps/s": round(steps),
                "of bare unrolls": rates[name] / rates["bare unrolls"],
                "GFLOP/s": steps * each / 1e9,
                "of the product": steps * each / peak,
            }
        )
    print_table(rows)
    print(f"product: {peak / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
