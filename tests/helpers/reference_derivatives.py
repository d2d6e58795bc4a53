"""Loops-only NumPy transcriptions of the estimators that differentiate.

As in `reference.py`, one simulation and one step at a time. The systems give the
derivatives of a step, and the chain rule is written out here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from reference import Particle, System


@dataclass
class Slopes:
    """Derivatives of one step, of S state coordinates and D parameters.

    Attributes:
        state_by_state, state_by_theta: Of the new state. # shape=(S, S), (S, D)
        loss_by_state, loss_by_theta: Of the step's loss, by the old state and theta.
            # shape=(S,), (D,)
    """

    state_by_state: np.ndarray
    state_by_theta: np.ndarray
    loss_by_state: np.ndarray
    loss_by_theta: np.ndarray


class SmoothSystem(System, Protocol):
    """A system that gives the derivatives of its steps."""

    state_size: int

    def slopes(self, state: Any, theta: np.ndarray) -> Slopes: ...


class Traced:
    """A particle and the derivative of its state by theta. # shape=(S, D)"""

    def __init__(self, particle: Particle, num_parameters: int) -> None:
        self.particle = particle
        self.system: Any = particle.system
        self.sensitivity = np.zeros((self.system.state_size, num_parameters))

    def step(self, theta: np.ndarray) -> tuple[np.ndarray, bool]:
        """(gradient of the step's loss, whether the episode ended)."""
        by = self.system.slopes(self.particle.state, theta)
        gradient = by.loss_by_state @ self.sensitivity + by.loss_by_theta
        self.sensitivity = by.state_by_state @ self.sensitivity + by.state_by_theta
        _, ended = self.particle.step(theta)
        if ended:  # A first state does not depend on theta.
            self.reset_sensitivity()
        return gradient, ended

    def reset_sensitivity(self) -> None:
        self.sensitivity = np.zeros_like(self.sensitivity)


def rtrl(
    particles: list[Particle],
    theta: np.ndarray,
    truncation_length: int,
    num_updates: int,
    truncated: bool = False,
) -> list[np.ndarray]:
    """RTRL, or if `truncated` TBPTT, which resets the sensitivity in each unroll."""
    traced = [Traced(particle, theta.size) for particle in particles]
    gradients = []
    for _ in range(num_updates):
        gradient = np.zeros(theta.size)
        for one in traced:
            if truncated:
                one.reset_sensitivity()
            for _ in range(truncation_length):
                gradient += one.step(theta)[0]
        gradients.append(gradient / len(traced))
    return gradients


def bptt(
    particles: list[Particle], theta: np.ndarray, num_updates: int
) -> list[np.ndarray]:
    """The gradient of one whole episode a particle and update."""
    traced = [Traced(particle, theta.size) for particle in particles]
    gradients = []
    for _ in range(num_updates):
        gradient = np.zeros(theta.size)
        for one in traced:
            ended = False
            while not ended:
                part, ended = one.step(theta)
                gradient += part
        gradients.append(gradient / len(traced))
    return gradients


def uoro(
    particles: list[Particle],
    theta: np.ndarray,
    signs: Callable[[int], np.ndarray],
    truncation_length: int,
    num_updates: int,
) -> list[np.ndarray]:
    """UORO, a partial unroll in place of a step.

    Args:
        particles: N particles at the start of their first episodes.
        theta: Mean parameters. # shape=(D,)
        signs: Signs of the update of a given index. # shape=(N, S)
        truncation_length: K.
        num_updates: How many.
    """
    traced = [Traced(particle, theta.size) for particle in particles]
    u = np.zeros((len(traced), traced[0].system.state_size))
    v = np.zeros((len(traced), theta.size))
    gradients = []
    for update in range(num_updates):
        gradient = np.zeros(theta.size)
        for i, one in enumerate(traced):
            old_v = v[i].copy()
            one.reset_sensitivity()
            for _ in range(truncation_length):
                by = one.system.slopes(one.particle.state, theta)
                gradient += (by.loss_by_state @ u[i]) * old_v
                u[i] = by.state_by_state @ u[i]
                part, ended = one.step(theta)
                gradient += part
                if ended:
                    u[i], v[i] = 0.0, 0.0
            n = signs(update)[i]
            d = n @ one.sensitivity
            r0 = np.sqrt(np.linalg.norm(v[i]) / (np.linalg.norm(u[i]) + 1e-7)) + 1e-7
            r1 = np.sqrt(np.linalg.norm(d) / (np.linalg.norm(n) + 1e-7)) + 1e-7
            u[i] = r0 * u[i] + r1 * n
            v[i] = v[i] / r0 + d / r1
        gradients.append(gradient / len(traced))
    return gradients


def pes_analytic(
    particles: list[Particle],
    means: list[Particle],
    theta: np.ndarray,
    perturbations: np.ndarray,
    sigma: float,
    truncation_length: int,
) -> list[np.ndarray]:
    """PES+Analytic; arguments as in `reference.pes`, and a mean particle a pair."""
    traced = [Traced(mean, theta.size) for mean in means]
    accumulator = np.zeros(perturbations.shape[1:])
    gradients = []
    for perturbation in perturbations:
        gradient = np.zeros(theta.size)
        analytic = np.zeros((len(means), theta.size))
        for pair, mean in enumerate(traced):
            mean.reset_sensitivity()
            for _ in range(truncation_length):
                part, ended = mean.step(theta)
                analytic[pair] += part
                if ended:
                    break
        for i, particle in enumerate(particles):
            p = analytic[particle.pair]
            loss = 0.0
            for _ in range(truncation_length):
                step_loss, ended = particle.step(theta + perturbation[i])
                loss += step_loss
                if ended:
                    break
            gradient += p
            gradient += accumulator[i] * (loss - perturbation[i] @ p) / sigma**2
            accumulator[i] = accumulator[i] + perturbation[i]
            if particle.elapsed == 0:
                accumulator[i] = 0.0
        gradients.append(gradient / len(particles))
    return gradients
