"""A model of the time of an update with W Ray workers, with four fitted numbers.

    seconds of an update  =  a  +  b N  +  c W  +  s N K / min(W, cores)

N particles, K steps of an unroll; `a` and `b N` are the driver's own work
(perturbations and gradient, taking particles apart and together), `c W` what it does
for each worker's message, `s` the time of a simulated step on one worker. It assumes
that the driver does one thing at a time, that no two of the terms overlap, and that
workers compute alike, with a core each. On a network the bytes of all workers pass the
driver's one cable:

    + W bytes / bandwidth
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from pes_rl.analysis.output import Row

BANDWIDTH = 1.25e9
"""Bytes a second that the driver's network is taken to carry: 10 Gbit/s."""


@dataclass(frozen=True)
class Model:
    """Fitted seconds per update, per particle, per message and per step."""

    driver: float
    particle: float
    message: float
    step: float

    @classmethod
    def fit(cls, rows: Sequence[Row], cores: int) -> "Model":
        """Fit by least relative squares, with all numbers at least 0."""
        used = [row for row in rows if row["workers"]]
        terms = np.array([_terms(row, cores) for row in used])
        seconds = np.array([row["seconds"] for row in used])
        numbers, _ = nnls(terms / seconds[:, None], np.ones(len(used)))
        return cls(*numbers.tolist())

    def error(self, rows: Sequence[Row], cores: int) -> float:
        """Largest relative error over the measured updates."""
        own = self.driver, self.particle, self.message, self.step
        return max(
            abs(np.dot(own, _terms(row, cores)) / row["seconds"] - 1)
            for row in rows
            if row["workers"]
        )

    def seconds(
        self, workers: int, particles: int, unroll: int, worker_bytes: float
    ) -> float:
        """Seconds of an update by workers with one core each, connected by a network.

        Args:
            workers: W.
            particles: N of all workers.
            unroll: K.
            worker_bytes: Sent to and from each worker.
        """
        return (
            self.driver
            + self.particle * particles
            + (self.message + worker_bytes / BANDWIDTH) * workers
            + self.step * particles * unroll / workers
        )


def _terms(row: Row, cores: int) -> list[float]:
    particles, workers = row["particles"], row["workers"]
    steps = particles * row["unroll"] / min(workers, cores)
    return [1.0, particles, workers, steps]


def predict(model: Model, rows: Sequence[Row], unroll: int) -> list[Row]:
    """Weak and strong scaling to 1000 workers, from the largest measured update.

    Weak: each worker has as many particles as one of two had. Strong: all workers share
    a hundred times the particles that two shared.
    """
    last = max(
        (row for row in rows if row["workers"] == 2 and row["unroll"] == unroll),
        key=lambda row: row["particles"],
    )
    each = last["particles"] // 2
    bytes_each = (last["bytes_out"] + last["bytes_back"]) / 2
    predicted = []
    for kind in ("weak", "strong"):
        for workers in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
            particles = each * workers if kind == "weak" else 100 * last["particles"]
            # What is sent grows with the particles that a worker has.
            sent = bytes_each * particles / workers / each
            seconds = model.seconds(workers, particles, unroll, sent)
            alone = model.seconds(1, particles, unroll, sent * workers)
            predicted.append(
                {
                    "env": last["env"],
                    "kind": kind,
                    "workers": workers,
                    "particles": particles,
                    "seconds": seconds,
                    "steps_per_second": particles * unroll / seconds,
                    "efficiency": alone / seconds / workers,
                }
            )
    return predicted
