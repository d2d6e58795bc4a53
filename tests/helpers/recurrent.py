"""A recurrent system whose smoothed gradients are known in closed form."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SIGMA = 0.3
START = 0.4
THETA = np.array([0.5, -1.0, 0.8])
NUM_STEPS = 7

_generator = np.random.default_rng(0)
A = np.array([[0.9, 0.3], [-0.4, 0.7]])
B = 0.7 * _generator.normal(size=(2, THETA.size))
W = _generator.normal(size=(NUM_STEPS, 2)) + 0.5


def float32(array: Any) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


@dataclass(frozen=True)
class Recurrent:
    """s_t = A s_{t-1} + B theta, from a random first state, with the step loss

        W_t s_t + curvature / 2 |s_t|^2 + cubic / 3 (W_t s_t)^3

    First states have coordinates -START, 0 or START, each with probability 1/3. The
    coefficients may be traced, so that all systems share a compilation.
    """

    curvature: Any = 0.0
    cubic: Any = 0.0

    def init(self, key: jax.Array) -> Any:
        third = jax.random.key_data(key) % 3
        return jnp.int32(0), START * (third.astype(jnp.float32) - 1)

    def step(self, theta: jax.Array, state: Any) -> Any:
        t, s = state
        s = float32(A) @ s + float32(B) @ theta
        product = float32(W)[t] @ s
        loss = product + self.curvature / 2 * (s @ s) + self.cubic / 3 * product**3
        return (t + 1, s), loss, jnp.array(False)


@dataclass(frozen=True)
class Ending(Recurrent):
    """`Recurrent` with episodes that terminate after 3 to 5 steps."""

    def init(self, key: jax.Array) -> Any:
        last = 2 + (jax.random.key_data(key)[0] // 3 % 3).astype(jnp.int32)
        return last, super().init(key)

    def step(self, theta: jax.Array, state: Any) -> Any:
        last, (t, s) = state
        after, loss, _ = super().step(theta, (t, s))
        return (last, after), loss, t == last


SYSTEMS = {
    "linear": Recurrent(),
    "quadratic": Recurrent(curvature=0.5),
    "cubic": Recurrent(cubic=0.1),
}


def influence(age: int) -> np.ndarray:
    """Derivative of the state by the theta of `age` steps before. # shape=(2, D)"""
    return np.linalg.matrix_power(A, age) @ B


def effects_of_unrolls(truncation_length: int, horizon: int) -> np.ndarray:
    """Gradients of the linear system's later losses by each unroll's perturbation.

    Returns:
        # shape=(horizon / truncation_length, D)
    """
    by_step = [
        sum(W[t] @ influence(t - tau) for t in range(tau, horizon))
        for tau in range(horizon)
    ]
    return np.array(by_step).reshape(-1, truncation_length, THETA.size).sum(1)


def step_gradients(
    system: Recurrent,
    t: int,
    unroll_of_step: list[int | None],
    sigmas: tuple[float, ...] = (SIGMA,) * 9,
) -> np.ndarray:
    """Gradients of step t's expected loss by each theta until then.

    Randomness of the state leaves the expected gradient of a linear or quadratic loss
    as it is; that of a cubic one needs the variance of W_t s_t, to which steps under
    the same perturbation contribute together.

    Args:
        system: The system.
        t: The step in its episode, from 0.
        unroll_of_step: Unroll in which each step of the episode was taken until t, and
            with it the perturbation; None for a step under the mean theta.
        sigmas: Standard deviation of each unroll's perturbation.

    Returns:
        # shape=(t + 1, D)
    """
    influences = [influence(t - tau) for tau in range(t + 1)]
    mean = sum(influences) @ THETA
    # Influences of independent numbers of mean 0 and variance 1.
    random = [START * np.sqrt(2 / 3) * np.linalg.matrix_power(A, t + 1)]
    for unroll in {u for u in unroll_of_step if u is not None}:
        steps = [tau for tau in range(t + 1) if unroll_of_step[tau] == unroll]
        random.append(sigmas[unroll] * sum(influences[tau] for tau in steps))
    square = (W[t] @ mean) ** 2 + sum(np.sum((W[t] @ r) ** 2) for r in random)
    by_state = W[t] + system.curvature * mean + system.cubic * W[t] * square
    return np.stack([by_state @ i for i in influences])


def expected(
    system: Recurrent,
    truncation_length: int,
    num_unrolls: int,
    horizon: int,
    first_limit: int | None = None,
    truncated: bool = False,
    at_once: bool = False,
    noise_period: int | None = None,
    analytic: bool = False,
    sigmas: tuple[float, ...] = (SIGMA,) * 9,
    trace_decay: float = 1.0,
) -> np.ndarray:
    """Expected estimate of each unroll. # shape=(num_unrolls, D)

    A step's loss depends on the thetas since its episode began. PES contains the
    gradients by all of these, the truncated estimate by those in the same unroll. With
    `at_once`, the next episode begins in the unroll in which one ends. A perturbation
    lasts `noise_period` steps of an episode, or one unroll. An `analytic` gradient by
    the running unroll's theta is that of the mean theta's episode. A trace decay weighs
    the gradient by the theta of v unrolls before with its v-th power.
    """
    estimates = np.zeros((num_unrolls, THETA.size))
    unroll_of_step: list[int | None] = []
    limit = first_limit or horizon
    for unroll in range(num_unrolls):
        first_seen = 0
        if truncated:  # The state was reached by the mean theta.
            first_seen = len(unroll_of_step)
            unroll_of_step = [None] * first_seen
        for _ in range(truncation_length):
            t = len(unroll_of_step)
            age = t % noise_period if noise_period else 0
            unroll_of_step.append(unroll_of_step[t - age] if age else unroll)
            gradients = step_gradients(system, t, unroll_of_step, sigmas)
            if analytic:
                own = [of == unroll for of in unroll_of_step]
                gradients[own] = step_gradients(system, t, [None] * (t + 1))[own]
            if trace_decay != 1:
                ages = unroll - np.array(unroll_of_step, float)
                gradients *= trace_decay ** ages[:, None]
            estimates[unroll] += gradients[first_seen:].sum(0)
            if t + 1 == limit:
                unroll_of_step, limit, first_seen = [], horizon, 0
                if not at_once:
                    break
    return estimates
