"""CMA-ES of two other packages, pycma and evosax, on Swimmer with a linear policy.

    pip install cma evosax
    python results/cma_es/run.py [--packages pycma evosax] [--seeds 0 1] [--out FOLDER]

writes curves.csv, a row an evaluation of the distribution's mean over ten episodes, and
runs.csv, a row a run: its last mean over 100 episodes. A candidate's loss is the
negative return of one whole episode. A generation's candidates begin in one state.
"""

# pyright: reportMissingImports=false
import argparse
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pes_rl.run_folder.provenance import recording_maker

Array = NDArray[np.float64]
Losses = Callable[[Array], Array]
# Budget, threshold and sigma are those of results/swimmer.
BUDGET, THRESHOLD, SIGMA = 500_000, 340.0, 0.3
EPISODE = 1000  # steps
ACTIONS, OBSERVATIONS = 2, 8
SIZE = ACTIONS * OBSERVATIONS
POPULATION = 4 + int(3 * np.log(SIZE))  # pycma's default
EVALUATION_INTERVAL = 20_000
RUN_COLUMNS = ["package", "seed", "final_return", "steps_to_threshold", "seconds"]
CURVE_COLUMNS = ["package", "seed", "timesteps", "return"]


def pycma(seed: int, losses: Losses) -> Iterator[Array]:
    """Yield the distribution's mean after each generation of pycma's CMA-ES."""
    import cma

    options = {"seed": seed + 1, "verbose": -9, "popsize": POPULATION}
    strategy = cma.CMAEvolutionStrategy(np.zeros(SIZE), SIGMA, options)
    while True:
        candidates = strategy.ask()
        strategy.tell(candidates, list(losses(np.array(candidates))))
        yield np.array(strategy.mean)


def evosax(seed: int, losses: Losses) -> Iterator[Array]:
    """Yield the distribution's mean after each generation of evosax's CMA-ES."""
    import jax
    import jax.numpy as jnp
    from evosax.algorithms import CMA_ES

    strategy = CMA_ES(POPULATION, jnp.zeros(SIZE))
    params = strategy.default_params.replace(std_init=SIGMA)
    key, first = jax.random.split(jax.random.key(seed))
    state = strategy.init(first, jnp.zeros(SIZE), params)
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    while True:
        key, for_ask, for_tell = jax.random.split(key, 3)
        candidates, state = ask(for_ask, state, params)
        fitness = jnp.asarray(losses(np.asarray(candidates, np.float64)), jnp.float32)
        state, _ = tell(for_tell, candidates, fitness, state, params)
        yield np.asarray(strategy.get_mean(state), np.float64)


PACKAGES = {"pycma": pycma, "evosax": evosax}


def returns(policies: Array, seeds: list[int | None]) -> Array:
    """Return of one episode for each policy [N, A * O], begun with its seed."""
    count = len(policies)
    made = [lambda: gymnasium.make("Swimmer-v5")] * count
    environments = gymnasium.vector.SyncVectorEnv(made)
    weights = policies.reshape(count, ACTIONS, OBSERVATIONS)
    observations, _ = environments.reset(seed=seeds)
    total = np.zeros(count)
    for _ in range(EPISODE):
        actions = np.einsum("nao,no->na", weights, observations)
        step = environments.step(np.clip(actions, -1, 1).astype(np.float32))
        observations = step[0]
        total += step[1]
    environments.close()
    return total


def evaluate(policy: Array, episodes: int, seed: int) -> float:
    """Mean return of a policy over episodes that begin in different states."""
    seeds: list[int | None] = list(range(seed, seed + episodes))
    return float(np.mean(returns(np.tile(policy, (episodes, 1)), seeds)))


def train(
    package: str, seed: int, record: Callable[[list[object]], None]
) -> list[object]:
    """Train once, giving the rows of its curve to `record`; the run's own row."""
    random = np.random.default_rng(seed)

    def losses(policies: Array) -> Array:
        return -returns(policies, [int(random.integers(2**31))] * len(policies))

    steps, reached, start, evaluating = 0, "", time.monotonic(), 0.0
    mean = np.zeros(SIZE)
    for mean in PACKAGES[package](seed, losses):
        before, steps = steps, steps + EPISODE * POPULATION
        if steps // EVALUATION_INTERVAL > before // EVALUATION_INTERVAL:
            clock = time.monotonic()
            value = evaluate(mean, 10, 10_000_000 + steps)
            evaluating += time.monotonic() - clock
            record([package, seed, steps, f"{value:.1f}"])
            if not reached and value >= THRESHOLD:
                reached = str(steps)
        if steps >= BUDGET:
            break
    seconds = time.monotonic() - start - evaluating
    final = evaluate(mean, 100, 20_000_000)
    return [package, seed, f"{final:.1f}", reached, f"{seconds:.0f}"]


def main() -> None:
    """Train each package on each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--packages", nargs="+", default=list(PACKAGES), choices=PACKAGES
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=range(10))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        recording_maker(options.out),
        (options.out / "runs.csv").open("w", newline="") as runs,
        (options.out / "curves.csv").open("w", newline="") as curves,
    ):
        rows, points = csv.writer(runs), csv.writer(curves)
        rows.writerow(RUN_COLUMNS)
        points.writerow(CURVE_COLUMNS)

        def record(row: list[object]) -> None:
            points.writerow(row)
            curves.flush()

        for package in options.packages:
            for seed in options.seeds:
                row = train(package, seed, record)
                rows.writerow(row)
                runs.flush()
                print(*row, flush=True)


if __name__ == "__main__":
    main()
