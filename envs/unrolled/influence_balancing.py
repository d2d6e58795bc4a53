"""Influence balancing (Tallec and Ollivier 2017), as in the PES paper.

    s_t = A s_{t-1} + theta d,    s_0 = 1,    L_t = (s_t[0] - 1)^2 / 2

where A has 1/2 on the diagonal and on the first upper diagonal, n = 23, and d is 1 in
its first 10 entries and -1 in the last 13. theta increases the first coordinate at once
and, through the others, decreases it in the long run: the gradient over a short horizon
has the wrong sign. The state converges to s[0] = -6 theta, so the optimum is
theta = -1/6.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from pes_rl.envs.unrolled.problem import UnrolledProblem

SIZE = 23
NUM_POSITIVE = 10

State = tuple[jax.Array, jax.Array]  # steps so far, s


@dataclass(frozen=True)
class InfluenceBalancing(UnrolledProblem):
    """A linear system of 23 coordinates with one parameter; its episode never ends.

    Attributes:
        loss_interval: Number of steps from one loss to the next; the loss of the steps
            between is 0. The published code unrolls K steps and uses the loss of the
            last one, which is `loss_interval` = K here. Published runs of ES, PES, RTRL
            and UORO have K = 1, with a loss at every step.
    """

    loss_interval: int = 1

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return ("theta",)

    def init_theta(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.array([0.5])

    def init(self, key: jax.Array) -> State:
        del key
        return jnp.int32(0), jnp.ones(SIZE)

    def step(
        self, theta: jax.Array, state: State
    ) -> tuple[State, jax.Array, jax.Array]:
        t, s = state
        drive = jnp.where(jnp.arange(SIZE) < NUM_POSITIVE, theta, -theta)
        shifted = jnp.concatenate([s[1:], jnp.zeros_like(s[:1])])
        s = 0.5 * (s + shifted) + drive
        loss = 0.5 * (s[0] - 1) ** 2
        # Counted modulo the interval, because the episode never ends.
        t = (t + 1) % self.loss_interval
        return (t, s), jnp.where(t == 0, loss, 0.0), jnp.array(False)

    @property
    def meta_loss(self) -> Literal["last"]:
        return "last"

    @property
    def evaluation_steps(self) -> int:
        """The multiple of the interval nearest above the published 500."""
        return -(-500 // self.loss_interval) * self.loss_interval

    @property
    def diverged_loss(self) -> float:
        """As large as the losses before a divergence; sums of it are finite."""
        return 1e30
