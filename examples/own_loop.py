"""PES in a loop of your own: jit, scan, vmap and optax do the rest.

python examples/own_loop.py

The problem is a training run: theta is the logarithm of a learning rate, the state the
weights that gradient descent trains with it, and the loss that of the weights after
each step. It is cut into unrolls of 5 of its 60 steps. Eight seeds run at once.
"""

import argparse

import jax
import jax.numpy as jnp
import optax

from pes_rl.agents import PES
from pes_rl.envs import DeviceRollout

CURVATURE = jnp.array([0.1, 0.3, 1.0, 2.0])


class InnerTraining:
    """Gradient descent on sum_i CURVATURE_i w_i^2 / 2 from random weights."""

    def init(self, key):
        """First weights of an episode."""
        return jax.random.normal(key, CURVATURE.shape)

    def step(self, theta, state):
        """Weights after one step, their loss, and whether the episode ends."""
        weights = state - jnp.exp(theta[0]) * CURVATURE * state
        return weights, (CURVATURE * weights**2).sum() / 2, jnp.array(False)


rollout = DeviceRollout(InnerTraining(), horizon=60)
estimator = PES(num_pairs=50, truncation_length=5, sigma=0.05, stagger=True)
optimizer = optax.adam(0.02)


def train(key, updates):
    """Theta after so many steps of Adam along PES's estimates."""
    theta = jnp.array([-2.0])
    start_key, key = jax.random.split(key)

    def update(carry, key):
        theta, moments, state = carry
        gradient, state, _ = estimator.estimate(rollout, theta, state, key)
        step, moments = optimizer.update(gradient, moments)
        theta = jnp.asarray(optax.apply_updates(theta, step))
        return (theta, moments, state), None

    state = estimator.init(rollout, theta, start_key)
    carry, keys = (theta, optimizer.init(theta), state), jax.random.split(key, updates)
    (theta, *_), _ = jax.lax.scan(update, carry, keys)
    return theta[0]


def main():
    """Train on eight seeds and print their learning rates beside the best one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=500)
    options = parser.parse_args()
    seeds = jax.vmap(jax.random.key)(jnp.arange(8))
    thetas = jax.jit(jax.vmap(lambda key: train(key, options.updates)))(seeds)
    rates = jnp.linspace(0.1, 1.0, 1000)
    factors = (1 - rates[:, None] * CURVATURE) ** 2
    losses = CURVATURE * factors ** jnp.arange(1, 61)[:, None, None]
    print(f"best learning rate {rates[losses.sum((0, 2)).argmin()]:.3f}")
    print("learned", *(f"{rate:.3f}" for rate in jnp.exp(thetas)))


if __name__ == "__main__":
    main()
