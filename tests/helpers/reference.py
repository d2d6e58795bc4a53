"""Loops-only NumPy transcriptions of the estimators' algorithm boxes.

They share no code with the package: a `System` is stepped one simulation and one step
at a time, and every particle has its own counters.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class System(Protocol):
    """A system whose states are plain data."""

    def begin(self, pair: int, episode: int) -> Any:
        """First state of a pair's given episode."""
        ...

    def step(self, state: Any, theta: np.ndarray) -> tuple[Any, float, bool]:
        """(state, loss, terminated); a loss of NaN means that the system diverged."""
        ...


@dataclass
class Particle:
    """One simulation and the counters of its episodes."""

    system: System
    pair: int
    horizon: int
    limit: int
    diverged_loss: float = 0.0
    episode: int = 0
    elapsed: int = 0
    episode_loss: float = 0.0
    steps: int = 0
    divergences: int = 0
    finished: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.system.begin(self.pair, self.episode)

    def step(self, theta: np.ndarray) -> tuple[float, bool]:
        """(loss, whether the episode ended)."""
        self.state, loss, ended = self.system.step(self.state, theta)
        if not np.isfinite(loss):
            loss, ended = self.diverged_loss, True
            self.divergences += 1
        self.steps += 1
        self.elapsed += 1
        self.episode_loss += loss
        if not ended and self.elapsed < self.limit:
            return loss, False
        self.finished.append((self.episode_loss, self.elapsed))
        self.episode += 1
        self.elapsed, self.episode_loss, self.limit = 0, 0.0, self.horizon
        self.state = self.system.begin(self.pair, self.episode)
        return loss, True


def pes(
    particles: list[Particle],
    theta: np.ndarray,
    perturbations: np.ndarray,
    sigma: float,
    truncation_length: int,
    restart_at_once: bool,
    trace_decay: float = 1.0,
) -> list[np.ndarray]:
    """PES, Algorithm 2, where episodes may end at any step.

    Args:
        particles: N particles at the start of their first episodes.
        theta: Mean parameters, the same for every update. # shape=(D,)
        perturbations: One set for each update. # shape=(updates, N, D)
        sigma: Standard deviation of the perturbations.
        truncation_length: K.
        restart_at_once: Whether the next episode begins in the unroll of an end.
        trace_decay: lambda.

    Returns:
        The gradient of each update.
    """
    accumulator = np.zeros(perturbations.shape[1:])
    gradients = []
    for perturbation in perturbations:
        gradient = np.zeros(theta.size)
        for i, particle in enumerate(particles):
            accumulator[i] = trace_decay * accumulator[i] + perturbation[i]
            for _ in range(truncation_length):
                loss, ended = particle.step(theta + perturbation[i])
                gradient += accumulator[i] * loss
                if ended and not restart_at_once:
                    break
                if ended:  # The new episode has this perturbation alone.
                    accumulator[i] = perturbation[i]
            if particle.elapsed == 0:  # The next episode has not begun.
                accumulator[i] = 0.0
        gradients.append(gradient / (len(particles) * sigma**2))
    return gradients


def nres(
    particles: list[Particle],
    theta: np.ndarray,
    noise: Callable[[int], np.ndarray],
    sigma: float,
    truncation_length: int,
    num_updates: int,
) -> list[np.ndarray]:
    """NRES, where episodes may end at any step; same arguments as `pes`, and:

    Args:
        noise: Unit normal noise [N, D] of the particles' episodes of a given index.
    """
    gradients = []
    for _ in range(num_updates):
        gradient = np.zeros(theta.size)
        for i, particle in enumerate(particles):
            perturbation = sigma * noise(particle.episode)[i]
            for _ in range(truncation_length):
                loss, ended = particle.step(theta + perturbation)
                gradient += perturbation * loss
                if ended:
                    break
        gradients.append(gradient / (len(particles) * sigma**2))
    return gradients


def gpes(
    particles: list[Particle],
    theta: np.ndarray,
    noise: Callable[[int, int], np.ndarray],
    sigma: float,
    truncation_length: int,
    noise_period: int,
    num_updates: int,
) -> list[np.ndarray]:
    """GPES, where episodes may end at any step; same arguments as `pes`, and:

    Args:
        noise: Unit normal noise [N, D] of the particles' episodes of a given index, in
            the period of a given index.
        noise_period: M.
    """
    accumulator = np.zeros((len(particles), theta.size))
    perturbation = np.zeros_like(accumulator)
    gradients = []
    for _ in range(num_updates):
        gradient = np.zeros(theta.size)
        for i, particle in enumerate(particles):
            if particle.elapsed % noise_period == 0:
                period = particle.elapsed // noise_period
                perturbation[i] = sigma * noise(particle.episode, period)[i]
                accumulator[i] += perturbation[i]
            for _ in range(truncation_length):
                loss, ended = particle.step(theta + perturbation[i])
                gradient += accumulator[i] * loss
                if ended:
                    accumulator[i] = 0.0
                    break
        gradients.append(gradient / (len(particles) * sigma**2))
    return gradients


def full_es(
    particles: list[Particle],
    theta: np.ndarray,
    perturbations: np.ndarray,
    sigma: float,
) -> list[np.ndarray]:
    """ES on one whole episode a particle and update; same arguments as `pes`."""
    gradients = []
    for perturbation in perturbations:
        gradient = np.zeros(theta.size)
        for i, particle in enumerate(particles):
            ended = False
            while not ended:
                loss, ended = particle.step(theta + perturbation[i])
                gradient += perturbation[i] * loss
        gradients.append(gradient / (len(particles) * sigma**2))
    return gradients


def truncated_es(
    mean: Particle,
    theta: np.ndarray,
    perturbations: np.ndarray,
    sigma: float,
    truncation_length: int,
) -> list[np.ndarray]:
    """Truncated ES, Algorithm 1: all start from the state of the mean particle."""
    gradients = []
    for perturbation in perturbations:
        gradient = np.zeros(theta.size)
        for e in perturbation:
            # A shallow copy: fields are replaced, not changed in place.
            particle = Particle(mean.system, mean.pair, mean.horizon, mean.limit)
            particle.__dict__.update(mean.__dict__, finished=[])
            for _ in range(truncation_length):
                loss, ended = particle.step(theta + e)
                gradient += e * loss
                if ended:
                    break
        for _ in range(truncation_length):
            if mean.step(theta)[1]:
                break
        gradients.append(gradient / (len(perturbation) * sigma**2))
    return gradients


def ars(
    particles: list[Particle],
    theta: np.ndarray,
    perturbations: np.ndarray,
    sigma: float,
    num_top_pairs: int,
) -> list[np.ndarray]:
    """ARS, Algorithm 1, without its normaliser; same arguments as `full_es`."""
    directions = []
    for perturbation in perturbations:
        pairs = []
        for pair in range(len(particles) // 2):
            losses = []
            for i in (2 * pair, 2 * pair + 1):
                losses.append(play(particles[i], theta + perturbation[i]))
            pairs.append((min(losses), losses, perturbation[2 * pair] / sigma))
        top = sorted(pairs, key=lambda pair: pair[0])[:num_top_pairs]
        std = np.std([loss for _, losses, _ in top for loss in losses])
        direction = sum((losses[0] - losses[1]) * e for _, losses, e in top)
        directions.append(direction / (num_top_pairs * std))
    return directions


def random_search(
    particles: list[Particle], candidates: np.ndarray
) -> list[tuple[np.ndarray, float]]:
    """Best parameters and their loss after each update.

    Args:
        particles: N particles at the start of their first episodes.
        candidates: Parameters to try in each update. # shape=(updates, N, D)
    """
    best, best_loss, history = candidates[0, 0], np.inf, []
    for thetas in candidates:
        for particle, theta in zip(particles, thetas, strict=True):
            divergences = particle.divergences
            loss = play(particle, theta)
            if loss < best_loss and particle.divergences == divergences:
                best, best_loss = theta, loss
        history.append((best, best_loss))
    return history


def play(particle: Particle, theta: np.ndarray) -> float:
    """Loss of one whole episode."""
    total, ended = 0.0, False
    while not ended:
        loss, ended = particle.step(theta)
        total += loss
    return total
