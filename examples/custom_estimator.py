"""A gradient estimator of your own, beside PES, on a problem of your own.

python examples/custom_estimator.py

The estimator is antithetic evolution strategies on single partial unrolls. It keeps no
accumulator, so it does not see what a perturbation does to later unrolls, and the
problem is one in which that is what counts.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pes_rl.agents import PES, antithetic_perturbations
from pes_rl.envs import DeviceRollout


class DelayedCost:
    """A system in which theta helps now and costs later: s <- 0.9 s + theta.

    Each step's loss is s^2 / 20 - theta. An episode lasts 100 steps.
    """

    def init(self, key):
        """Every episode starts at 0."""
        del key
        return jnp.zeros(())

    def step(self, theta, state):
        """State, loss of the step, and whether the episode ended."""
        state = 0.9 * state + theta[0]
        return state, state**2 / 20 - theta[0], jnp.zeros((), bool)


@dataclass(frozen=True)
class SingleUnrollES:
    """Biased gradient estimates from single unrolls: 1 / (N sigma^2) sum_i e_i L_i."""

    num_pairs: int
    truncation_length: int
    sigma: float

    def init(self, rollout: Any, theta: jax.Array, key: jax.Array) -> Any:
        """The particles, at the start of their first episodes."""
        return rollout.reset(key, self.num_pairs, stagger=True)

    def estimate(
        self, rollout: Any, theta: jax.Array, particles: Any, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        """One estimate [D], and the particles after their unrolls."""
        e = antithetic_perturbations(key, self.num_pairs, theta.size, self.sigma)
        particles, segment = rollout.unroll(
            particles, theta + e, self.truncation_length
        )
        loss = segment.loss.sum(0)
        return (e * loss[:, None]).sum(0) / (len(e) * self.sigma**2), particles


def train(estimator: Any, rollout: Any, updates: int) -> float:
    """Theta after so many steps of Adam along the estimates."""
    optimizer = optax.adam(0.02)
    theta = jnp.zeros(1)

    def update(carry, key):
        theta, optimizer_state, state = carry
        gradient, state, *_ = estimator.estimate(rollout, theta, state, key)
        step, optimizer_state = optimizer.update(gradient, optimizer_state)
        theta = jnp.asarray(optax.apply_updates(theta, step))
        return (theta, optimizer_state, state), theta[0]

    state = estimator.init(rollout, theta, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), updates)
    start = (theta, optimizer.init(theta), state)
    _, thetas = jax.jit(lambda start: jax.lax.scan(update, start, keys))(start)
    return float(thetas[-updates // 4 :].mean())


def main() -> None:
    """Train theta with both estimators and print where it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=2000)
    options = parser.parse_args()
    rollout = DeviceRollout(DelayedCost(), horizon=100)
    sizes = {"num_pairs": 200, "truncation_length": 5, "sigma": 0.1}
    powers = 0.9 ** jnp.arange(100)
    weight = (jnp.cumsum(powers) ** 2).mean() / 20  # loss(theta) / 100
    print(f"best theta                {float(1 / (2 * weight)):.3f}")
    pes = PES(**sizes, stagger=True)
    print(f"theta by PES              {train(pes, rollout, options.updates):.3f}")
    own = SingleUnrollES(**sizes)
    print(f"theta by single unrolls   {train(own, rollout, options.updates):.3f}")


if __name__ == "__main__":
    main()
