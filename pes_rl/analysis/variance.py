"""Variance of the agents' estimates against the number of unrolls: `variance`.

Measured is the trace of the covariance of the sum of the estimates over one episode,
theta held, over the squared norm of the gradient; times the pairs P it is the paper's
number for one pair.
"""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogFormatter, NullLocator

from pes_rl.agents import Estimator
from pes_rl.analysis.episodes import (
    Episodes,
    check_agents,
    count_unrolls,
    episode_estimates,
)
from pes_rl.analysis.linear_blocks import LinearBlocks, predicted_variance
from pes_rl.analysis.output import Row, Table, new_figure, print_table
from pes_rl.analysis.subject import Measurement, Subject


@dataclass(frozen=True)
class Variance(Measurement):
    """Total variance of the estimates of one episode against the number of unrolls."""

    env: str = "linear:identical"
    truncation_length: tuple[int, ...] = ()
    """Unroll lengths K, divisors of the episode's steps; none takes every divisor."""
    noise_period: int | None = None
    """Steps of a perturbation of gpes; None takes twice the unroll length."""
    repeats: int = 200
    """Independent episodes that the variance is measured over."""
    reference_repeats: int = 1000
    """Episodes of es that the gradient's norm is measured over, where not known."""
    logdir: str = "runs/variance"
    """Folder of variance.csv and variance.png."""

    def run(self) -> None:
        """Measure, print and write.

        Raises:
            ValueError: If an agent cannot run on the problem.
        """
        subject = self.subject()
        jobs = [job for agent in self.agent for job in self._estimators(agent, subject)]
        known = isinstance(subject.problem, LinearBlocks)
        episodes = len(jobs) * self.repeats + (0 if known else self.reference_repeats)
        check_agents(subject, [estimator for _, estimator in jobs])
        out = Path(self.logdir)
        table = Table(out / "variance.csv")
        with Episodes(f"variance {self.env}", episodes) as progress:
            gradient = self._squared_gradient(subject, progress)
            for agent, estimator in jobs:
                sums = episode_estimates(
                    subject,
                    estimator,
                    self.repeats,
                    self.seed + 1,
                    partial(progress.add, what=agent),
                )
                table.add(self._row(subject, agent, estimator, sums, gradient))
        options = json.loads(self.env_kwargs).items()
        title = ", ".join([self.env, *(f"{name} {value}" for name, value in options)])
        _draw(out / "variance.png", table.rows, title)
        print_table(table.rows)
        print(f"results: {out}")

    def _row(
        self,
        subject: Subject,
        agent: str,
        estimator: Estimator,
        sums: np.ndarray,
        gradient: tuple[float, float],
    ) -> Row:
        """Table row of the sums over episodes [R, D]."""
        squared, squared_error = gradient
        variance, error = total_variance(sums)
        ratio = variance / squared
        relative = np.hypot(error / max(variance, 1e-30), squared_error / squared)
        unrolls = count_unrolls(estimator, subject.horizon)
        return {
            "env": self.env,
            "agent": agent,
            "truncation_length": subject.horizon // unrolls,
            "unrolls": unrolls,
            "normalized_variance": ratio,
            "standard_error": ratio * float(relative),
            "predicted": self._predicted(subject, agent, estimator, squared),
        }

    def _estimators(self, agent: str, subject: Subject) -> list[tuple[str, Estimator]]:
        """The agent at each K; only one if it plays whole episodes."""
        steps = subject.horizon
        divisors = tuple(k for k in range(1, steps + 1) if steps % k == 0)
        made = []
        for length in self.truncation_length or divisors:
            period = self.noise_period or 2 * length
            estimator = self.make_estimator(
                agent, truncation_length=length, noise_period=period
            )
            made.append((agent, estimator))
        return made if hasattr(made[0][1], "truncation_length") else made[:1]

    def _squared_gradient(
        self, subject: Subject, progress: Episodes
    ) -> tuple[float, float]:
        """Squared norm of the gradient, and its standard error."""
        if isinstance(subject.problem, LinearBlocks):
            return float((subject.problem.gradient**2).sum()), 0.0
        sums = episode_estimates(
            subject,
            self.make_estimator("es"),
            self.reference_repeats,
            self.seed,
            partial(progress.add, what="reference, es"),
        )
        squared, error = squared_norm(sums)
        require_signal(self.env, squared, error, self.reference_repeats)
        return squared, error

    def _predicted(
        self, subject: Subject, agent: str, estimator: Any, squared: float
    ) -> float:
        if not isinstance(subject.problem, LinearBlocks):
            return float("nan")
        return predicted_variance(subject.problem, agent, estimator) / squared


def total_variance(samples: np.ndarray) -> tuple[float, float]:
    """Trace of the covariance of the rows [R, D], and its standard error."""
    count = len(samples)
    squares = ((samples - samples.mean(0)) ** 2).sum(1) * count / (count - 1)
    return float(squares.mean()), float(squares.std(ddof=1) / np.sqrt(count))


def squared_norm(samples: np.ndarray) -> tuple[float, float]:
    """Unbiased estimate of |E x|^2 from the rows [R, D], and its standard error.

    The squared norm of the mean exceeds it by the mean's own variance.
    """
    count, mean = len(samples), samples.mean(0)
    variance, _ = total_variance(samples)
    along = (samples @ mean).std(ddof=1) / np.sqrt(count)
    return float(mean @ mean - variance / count), float(2 * along)


def require_signal(env: str, squared: float, error: float, repeats: int) -> None:
    """Raise `ValueError` unless a squared norm is twice its standard error or more."""
    if squared >= 2 * error:
        return
    # The error falls with the root of the episodes; this makes it a quarter of the
    # norm, if that is no more lost than within one error.
    enough = math.ceil(repeats * (4 * error / max(squared, error)) ** 2)
    raise ValueError(
        f"the gradient of {env} is lost in noise: squared norm {squared:.3g} with a "
        f"standard error of {error:.3g} over {repeats} episodes of es; use "
        f"--reference-repeats {enough}, or as many times more --num-pairs"
    )


def _draw(path: Path, rows: list[Row], title: str) -> None:
    """Draw variance against unrolls, one colour per agent, predictions dashed."""
    figure = new_figure(7, 5)
    axes = figure.add_subplot()
    for number, agent in enumerate(dict.fromkeys(row["agent"] for row in rows)):
        own = sorted(
            (row for row in rows if row["agent"] == agent), key=lambda r: r["unrolls"]
        )
        color = f"C{number}"
        unrolls = [row["unrolls"] for row in own]
        axes.errorbar(
            unrolls,
            [row["normalized_variance"] for row in own],
            yerr=[row["standard_error"] for row in own],
            fmt="o",
            color=color,
            label=agent,
            capsize=3,
        )
        predicted = [row["predicted"] for row in own]
        if any(value > 0 for value in predicted):
            axes.plot(
                unrolls, predicted, "--", color=color, label=f"{agent}, predicted"
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    unrolls = sorted({row["unrolls"] for row in rows})
    axes.set_xticks(unrolls, [str(number) for number in unrolls])
    axes.xaxis.set_minor_locator(NullLocator())
    # 2 x 10^1 is harder to read than 20.
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    axes.set_title(title)
    axes.set_xlabel("unrolls in an episode, T / K")
    axes.set_ylabel("total variance / squared gradient norm")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
