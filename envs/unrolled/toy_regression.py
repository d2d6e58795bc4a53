"""The two-parameter learning-rate schedule of the PES paper, a chaotic meta-loss.

Plain gradient descent on a function of two variables,

    f(x) = sqrt(x0^2 + 5) - sqrt(5) + sin(x1)^2 exp(-5 x0^2) + |x1 - 100| / 4

from x = (1, 1). The learning rate changes linearly from exp(theta0) to exp(theta1): it
is (1 - t/T) exp(theta0) + (t/T) exp(theta1) at step t = 0, ..., T - 1. The loss of a
step is f after it. As a function of theta the meta-loss has many cliffs and flat parts.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pes_rl.envs.rollout.environment import Problem
from pes_rl.envs.unrolled.problem import FinalLoss, UnrolledProblem

State = tuple[jax.Array, jax.Array, jax.Array]  # step t, x0, x1


@dataclass(frozen=True)
class ToyRegression(UnrolledProblem):
    """The first and last learning rate of a hundred steps of gradient descent.

    Attributes:
        horizon: Steps T of the inner problem.
        final_loss: Use f after the last step as the loss of an episode (`FinalLoss`).
    """

    horizon: int = 100
    final_loss: bool = False

    @property
    def system(self) -> Problem:
        return FinalLoss(self) if self.final_loss else self

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return ("log first learning rate", "log last learning rate")

    def init_theta(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.array([-4.0, -4.0])

    def init(self, key: jax.Array) -> State:
        del key
        return jnp.int32(0), jnp.ones(()), jnp.ones(())

    def step(
        self, theta: jax.Array, state: State
    ) -> tuple[State, jax.Array, jax.Array]:
        t, *x = state
        elapsed = t.astype(theta.dtype) / self.horizon
        first, last = jnp.exp(theta)
        rate = (1 - elapsed) * first + elapsed * last
        slope = jax.grad(inner_loss, argnums=(0, 1))(*x)
        x0, x1 = (xi - rate * si for xi, si in zip(x, slope, strict=True))
        return (t + 1, x0, x1), inner_loss(x0, x1), jnp.array(False)

    @property
    def diverged_loss(self) -> float:
        """As large as the losses before a divergence; sums of it are finite."""
        return 1e30


def inner_loss(x0: jax.Array, x1: jax.Array) -> jax.Array:
    """f(x), which the inner problem minimises."""
    bowl = jnp.sqrt(x0**2 + 5) - jnp.sqrt(5.0)
    ripple = jnp.sin(x1) ** 2 * jnp.exp(-5 * x0**2)
    return bowl + ripple + 0.25 * jnp.abs(x1 - 100)
