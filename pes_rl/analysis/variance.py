"""Variance of the agents' estimates against the number of unrolls: `variance`.

Measured is the trace of the covariance of the sum of the estimates over one episode,
theta held, over the squared norm of the gradient; times the pairs P it is the paper's
number for one pair.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pes_rl.agents import Estimator
from pes_rl.analysis.linear_blocks import LinearBlocks, predicted_variance
from pes_rl.analysis.output import Row, new_figure, print_table, write_csv
from pes_rl.analysis.subject import (
    Subject,
    count_unrolls,
    episode_estimates,
    make_agent,
    make_subject,
)


@dataclass(frozen=True)
class Variance:
    """Total variance of the estimates of one episode against the number of unrolls."""

    env: str = "linear:identical"
    """A problem as for training, or linear:identical, linear:independent, whose
    variance is known."""
    agents: tuple[str, ...] = ("pes", "nres")
    """Estimators."""
    truncation_lengths: tuple[int, ...] = ()
    """Unroll lengths K, divisors of the episode's steps; none takes every divisor."""
    num_pairs: int | None = None
    """Antithetic pairs; None takes the task's default."""
    num_particles: int | None = None
    """Particles of agents without pairs; None takes the task's default."""
    sigma: float | None = None
    """Standard deviation of the perturbations; None takes the task's default."""
    noise_period: int | None = None
    """Steps of a perturbation of gpes; None takes twice the unroll length."""
    repeats: int = 200
    """Independent episodes that the variance is measured over."""
    reference_repeats: int = 1000
    """Episodes of es that the gradient's norm is measured over, where not known."""
    horizon: int | None = None
    """Steps of an episode; None takes the problem's."""
    theta: tuple[float, ...] | None = None
    """The fixed parameters; None takes a run's first ones."""
    env_kwargs: str = "{}"
    """Options of the problem, as a JSON object."""
    seed: int = 0
    """Seed of all randomness."""
    out: str = "runs/variance"
    """Folder of variance.csv and variance.png."""

    def run(self) -> None:
        """Measure, print and write.

        Raises:
            ValueError: If an agent cannot run on the problem.
        """
        subject = make_subject(
            self.env, self.theta, self.horizon, self.env_kwargs, self.seed
        )
        jobs = [
            job for agent in self.agents for job in self._estimators(agent, subject)
        ]
        squared, squared_error = self._squared_gradient(subject)
        rows: list[Row] = []
        for agent, estimator in jobs:
            sums = episode_estimates(subject, estimator, self.repeats, self.seed + 1)
            variance, error = total_variance(sums)
            ratio = variance / squared
            relative = np.hypot(error / max(variance, 1e-30), squared_error / squared)
            rows.append(
                {
                    "env": self.env,
                    "agent": agent,
                    "truncation_length": subject.horizon
                    // count_unrolls(estimator, subject.horizon),
                    "unrolls": count_unrolls(estimator, subject.horizon),
                    "normalized_variance": ratio,
                    "standard_error": ratio * float(relative),
                    "predicted": self._predicted(subject, agent, estimator, squared),
                }
            )
        out = Path(self.out)
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "variance.csv", rows)
        _draw(out / "variance.png", rows, self.env)
        print_table(rows)
        print(f"results: {out}")

    def _estimators(self, agent: str, subject: Subject) -> list[tuple[str, Estimator]]:
        """The agent at each K; a single one if it plays whole episodes."""
        steps = subject.horizon
        divisors = tuple(k for k in range(1, steps + 1) if steps % k == 0)
        made = []
        for length in self.truncation_lengths or divisors:
            estimator = make_agent(
                self.env,
                agent,
                truncation_length=length,
                num_pairs=self.num_pairs,
                num_particles=self.num_particles,
                sigma=self.sigma,
                noise_period=self.noise_period or 2 * length,
            )
            count_unrolls(estimator, steps)
            made.append((agent, estimator))
        return made if hasattr(made[0][1], "truncation_length") else made[:1]

    def _squared_gradient(self, subject: Subject) -> tuple[float, float]:
        """Squared norm of the gradient, and its standard error."""
        if isinstance(subject.problem, LinearBlocks):
            return float((subject.problem.gradient**2).sum()), 0.0
        options = {"num_pairs": self.num_pairs, "sigma": self.sigma}
        reference = make_agent(self.env, "es", **options)
        sums = episode_estimates(subject, reference, self.reference_repeats, self.seed)
        squared, error = squared_norm(sums)
        if squared < 2 * error:
            raise ValueError(
                f"the gradient of {self.env} is lost in noise: squared norm "
                f"{squared:.3g} with a standard error of {error:.3g}; use more "
                "reference_repeats or num_pairs"
            )
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


def _draw(path: Path, rows: list[Row], env: str) -> None:
    """Draw variance against unrolls, a colour an agent, predictions dashed."""
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
    axes.set_title(env)
    axes.set_xlabel("unrolls in an episode, T / K")
    axes.set_ylabel("total variance / squared gradient norm")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
