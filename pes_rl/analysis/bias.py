"""Distance of the agents' mean estimates from the full-unroll gradient: `bias`.

With m the mean over R episodes of an agent's estimates, r the reference's and v each
one's variance of the mean, |m - r|^2 exceeds the squared bias by v_m + v_r on average,
which is taken off: what is left can be negative where there is no bias.

es smooths by one perturbation an episode, pes and gpes by one in each unroll or period:
they are unbiased for slightly different losses, and that difference, which falls with
sigma, stays in what is measured.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pes_rl.analysis.episodes import Episodes, check_agents, episode_estimates
from pes_rl.analysis.output import Table, print_table
from pes_rl.analysis.subject import Measurement
from pes_rl.analysis.variance import total_variance


@dataclass(frozen=True)
class Bias(Measurement):
    """Distance of the mean estimates from the full-unroll gradient."""

    agent: tuple[str, ...] = ("pes", "nres", "truncated-es")
    reference: Literal["es", "bptt"] = "es"
    """Whose mean counts as the gradient: es, of the smoothed loss, or bptt, of the
    loss itself."""
    truncation_length: int | None = None
    """Steps K of an unroll, a divisor of the episode's; None takes the default."""
    sigma: float | None = None
    """Standard deviation of the perturbations, of the reference too; None takes pes's
    default."""
    repeats: int = 1000
    """Independent episodes, of the reference too."""
    logdir: str = "runs/bias"
    """Folder of bias.csv."""

    def run(self) -> None:
        """Measure, print and write.

        Raises:
            ValueError: If an agent cannot run on the problem.
        """
        subject = self.subject()
        # The defaults' sigma may differ between agents; what is smoothed must not.
        default: Any = self.make_estimator("pes")
        options = {"truncation_length": self.truncation_length, "sigma": default.sigma}
        estimators = {
            agent: self.make_estimator(agent, **options)
            for agent in (*self.agent, self.reference)
        }
        names = (self.reference, *self.agent)
        check_agents(subject, [*estimators.values()])
        table = Table(Path(self.logdir) / "bias.csv")
        with Episodes(f"bias {self.env}", len(names) * self.repeats) as progress:

            def measure(number: int) -> np.ndarray:
                return episode_estimates(
                    subject,
                    estimators[names[number]],
                    self.repeats,
                    self.seed + number,
                    partial(progress.add, what=names[number]),
                )

            reference = measure(0)
            for number, agent in enumerate(self.agent, start=1):
                sums = measure(number)
                squared, error = squared_distance(sums, reference)
                table.add(
                    {
                        "env": self.env,
                        "agent": agent,
                        "reference": self.reference,
                        "squared_bias": squared,
                        "standard_error": error,
                        "squared_gradient": float((reference.mean(0) ** 2).sum()),
                        "cosine": cosine(sums.mean(0), reference.mean(0)),
                    }
                )
        print_table(table.rows)
        print(f"results: {self.logdir}")


def squared_distance(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Unbiased estimate of |E x - E y|^2 from rows [R, D] of each, and its error.

    With S the covariance of the difference d of the means, |d|^2 has the variance
    4 d . S d + 2 tr S^2 if it is normal; with the measured d, which noise makes longer,
    that is rather too large than too small.
    """
    difference = first.mean(0) - second.mean(0)
    centred = np.concatenate([(x - x.mean(0)) / len(x) for x in (first, second)])
    variance = sum(total_variance(x)[0] / len(x) for x in (first, second))
    along = ((centred @ difference) ** 2).sum()
    # Of S = centred^T centred; the rows' products spare the D x D matrix.
    trace = ((centred @ centred.T) ** 2).sum()
    squared = float(difference @ difference - variance)
    return squared, float(np.sqrt(4 * along + 2 * trace))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of the angle between two vectors; NaN where one is 0."""
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norms) if norms > 0 else float("nan")
