"""Problems judged by their last loss, as problems with a loss at each step."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.envs.problem import Problem


@dataclass(frozen=True)
class FinalLoss:
    """A problem whose losses telescope: an episode's sum is its last loss.

        loss_t = L_t - L_{t-1},  L_0 = 0

    with L_t the loss of the problem inside, which should measure the same thing at
    every step (a fixed minibatch, say). Every estimator then sees the final loss in
    partial unrolls, unchanged.

    The released code for PES telescopes in the estimator: it weights an unroll by
    L_t xi_t - L_{t-1} xi_{t-1}, t being the unroll's end. That is PES on this problem
    plus L_{t-1} e_t, whose mean is 0, since e_t is new. Over an episode the released
    weights sum to L_T xi_T and those here to sum_t (L_T - L_{t-1}) e_t, in which the
    loss before an unroll is a baseline for what its perturbation brings. So there is
    less noise here where what an unroll did to the loss lasts, and more where the next
    one undoes it: with four unrolls and three parameters 34 to 64 at one end and 20 to
    13 at the other (in closed form and measured, `tests/envs/test_final_loss.py`).

    Attributes:
        problem: The problem inside.
    """

    problem: Problem

    @property
    def differentiable(self) -> bool:
        return getattr(self.problem, "differentiable", True)

    def init(self, key: jax.Array) -> tuple[Any, jax.Array]:
        return self.problem.init(key), jnp.float32(0)

    def step(
        self, theta: jax.Array, state: tuple[Any, jax.Array]
    ) -> tuple[Any, jax.Array, jax.Array]:
        inside, before = state
        inside, loss, ended = self.problem.step(theta, inside)
        return (inside, loss), loss - before, ended
