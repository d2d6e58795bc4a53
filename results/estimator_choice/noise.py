"""The members of a pair and the pairs: how alike losses are, how large estimates.

    python results/critics/policies.py
    python results/estimator_choice/noise.py [--tasks hopper ...] [--stages middle ...]

plays perturbed episodes at fixed policies, 64 antithetic pairs, and writes noise.csv
and noise.png. With L+ and L- the losses of a pair's members in one unroll:

    kept  =  Var(L+ - L-) / (Var(L+) + Var(L-)),  at each age of the episode

With L+ = m + d and L- = m - d it is 2 Var(d) / (Var(m) + Var(d)): 0 where all is in
common and cancels, 1 where the members are independent or m and d vary alike, 2 where
nothing is in common. Unrolls count in which both members are at that age.

tail is the share of the sum of squared norms of the pairs' estimates that the largest
hundredth of them has, over all ages.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pes_rl.agents import es_gradient, pes_gradient
from pes_rl.agents.core.perturbations import perturb, perturb_antithetic
from pes_rl.agents.nres import episode_perturbations
from pes_rl.analysis.output import Row, Table
from pes_rl.analysis.trained_subject import load_subject
from pes_rl.envs import Rollout
from pes_rl.run_folder.provenance import recording_maker
from pes_rl.runtime.progress import Progress

HERE = Path(__file__).parent
POLICIES = HERE.parent / "critics" / "policies"
TASKS = "swimmer", "halfcheetah", "hopper", "inverted_double_pendulum", "walker2d"
STAGES = "beginning", "middle", "end"
ESTIMATORS = "pes", "nres", "truncated-es"
PAIRS = 64
TAIL = 0.01
"""Share of the pairs that counts as the tail."""


@dataclass(frozen=True)
class Unroll:
    """One unroll of P antithetic pairs.

    Attributes:
        age: Steps of the episode before it, of each member. # shape=(P, 2)
        loss: Of each member. # shape=(P, 2)
        squared: Squared norm of each pair's estimate of the gradient. # shape=(P,)
        steps: Environment steps.
    """

    age: np.ndarray
    loss: np.ndarray
    squared: np.ndarray
    steps: int


def unrolls(
    estimator: str, rollout: Rollout, theta: jax.Array, length: int, sigma: float
) -> Iterator[Unroll]:
    """Unrolls of K steps without end, theta held fixed."""
    members = 1 if estimator == "truncated-es" else 2
    key, noise_key = jax.random.split(jax.random.key(ESTIMATORS.index(estimator)))
    particles = rollout.reset(jax.random.fold_in(key, 0), PAIRS, members=members)
    accumulators = jnp.zeros((2 * PAIRS, theta.size))
    number = 0
    while True:
        number += 1
        draw = jax.random.fold_in(key, number)
        start = particles
        if estimator == "truncated-es":
            start = rollout.take(particles, jnp.repeat(jnp.arange(PAIRS), 2))
        if estimator == "nres":
            deviations = jnp.full(2 * PAIRS, sigma, jnp.float32)
            seeds = jax.random.key_data(noise_key), start.clock.episode, theta.size
            arguments = episode_perturbations, deviations, *seeds
            e, thetas = perturb(rollout, theta, PAIRS, *arguments, num_pairs=PAIRS)
        else:
            e, thetas = perturb_antithetic(rollout, theta, draw, PAIRS, sigma)
        after, segment = rollout.unroll(start, thetas, length, single_episode=True)
        if estimator == "pes":
            parts, accumulators = pes_gradient(segment, accumulators, e, sigma)
        else:
            parts = es_gradient(segment.loss.sum(0), e, sigma)
        if estimator == "truncated-es":
            particles, _ = rollout.unroll(
                particles, theta[None], length, single_episode=True
            )
        else:
            particles = after
        pairs = PAIRS * np.asarray(parts, np.float64).reshape(PAIRS, 2, -1).sum(1)
        yield Unroll(
            np.array(start.clock.elapsed).reshape(PAIRS, 2),
            np.asarray(segment.loss, np.float64).sum(0).reshape(PAIRS, 2),
            (pairs**2).sum(1),
            int(np.sum(segment.simulated)),
        )


def share_kept(loss: np.ndarray) -> float:
    """Var(L+ - L-) / (Var(L+) + Var(L-)) of losses [n, 2]; NaN where none varies."""
    total = loss.var(0).sum()
    return float((loss[:, 0] - loss[:, 1]).var() / total) if total > 0 else np.nan


def tail_share(squared: np.ndarray) -> float:
    """The share of the sum that the largest `TAIL` of the values has."""
    count = max(1, round(TAIL * len(squared)))
    return float(np.sort(squared)[-count:].sum() / squared.sum())


def age_rows(seen: list[Unroll], length: int) -> list[Row]:
    """A row for each age at which at least 30 pairs are together."""
    age, loss = (np.concatenate([getattr(u, n) for u in seen]) for n in ("age", "loss"))
    together = age[:, 0] == age[:, 1]
    tail = round(tail_share(np.concatenate([u.squared for u in seen])), 3)
    rows = []
    for steps in range(0, int(age.max()) + 1, length):
        chosen = loss[together & (age[:, 0] == steps)]
        if len(chosen) >= 30:
            kept = round(share_kept(chosen), 3)
            rows.append(
                {"age": steps, "pairs": len(chosen), "kept": kept, "tail": tail}
            )
    return rows


def measure(
    task: str, stage: str, estimator: str, length: int, steps: int
) -> list[Row]:
    """The rows of one estimator at one policy."""
    saved = json.loads((POLICIES / f"{task}.json").read_text("utf-8"))[stage]
    subject = load_subject(str(POLICIES / f"{task}-{stage}.npz"), "last", task)
    sigma, seen, done = saved["sigma"], [], 0
    for unroll in unrolls(estimator, subject.rollout, subject.theta, length, sigma):
        seen.append(unroll)
        done += unroll.steps
        if done >= steps:
            break
    named = {"task": task, "stage": stage, "return": saved["return"]}
    return [{**named, "estimator": estimator, **row} for row in age_rows(seen, length)]


def draw(path: Path, rows: list[Row], stage: str) -> None:
    """A panel a task: what is kept against the age of the episode."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(3.4 * len(tasks), 3.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for number, task in enumerate(tasks, 1):
        axes = figure.add_subplot(1, len(tasks), number)
        for color, estimator in enumerate(ESTIMATORS):
            chosen = [
                row
                for row in rows
                if (row["task"], row["stage"], row["estimator"])
                == (task, stage, estimator)
            ]
            points = [(row["age"], row["kept"]) for row in chosen]
            axes.plot(
                *zip(*points, strict=True), "o-", color=f"C{color}", label=estimator
            )
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.set_ylim(0, 2.1)
        axes.set_title(task)
        axes.set_xlabel("age of the episode in steps")
    figure.axes[0].set_ylabel("Var(L+ - L-) / (Var(L+) + Var(L-))")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path)


def main() -> None:
    """Measure the policies, and write the table and the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--length", type=int, default=100, help="K, steps of an unroll")
    parser.add_argument("--steps", type=int, default=256_000, help="of each rollout")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    cases = [
        (task, stage, estimator)
        for task in options.tasks
        for stage in options.stages
        for estimator in ESTIMATORS
    ]
    table = Table(options.out / "noise.csv")
    with recording_maker(options.out), Progress("noise", len(cases), "rollouts") as bar:
        for number, case in enumerate(cases, 1):
            table.add(*measure(*case, options.length, options.steps))
            bar.update(number, " ".join(case))
    draw(options.out / "noise.png", table.rows, options.stages[-1])


if __name__ == "__main__":
    main()
