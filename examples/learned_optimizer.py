"""Train an optimiser by PES, and use it with optax on a network that it has not seen.

python examples/learned_optimizer.py
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import optax

import pes_rl

STEPS = 100


def loss(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error of a network with one hidden layer."""
    hidden = jnp.tanh(inputs @ params["first"])
    return jnp.mean((hidden @ params["last"] - targets) ** 2)


def train_network(optimizer: optax.GradientTransformation) -> float:
    """Loss of the network after `STEPS` steps of the optimiser."""
    keys = jax.random.split(jax.random.key(1), 3)
    inputs = jax.random.normal(keys[0], (256, 8))
    targets = jnp.sin(inputs.sum(axis=1, keepdims=True))
    params = {
        "first": 0.3 * jax.random.normal(keys[1], (8, 32)),
        "last": 0.2 * jax.random.normal(keys[2], (32, 1)),
    }

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        gradient = jax.grad(loss)(params, inputs, targets)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(STEPS):
        params, state = step(params, state)
    return float(loss(params, inputs, targets))


def main() -> None:
    """Train the optimiser on images, then let it train the network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-timesteps", type=int, default=200_000)
    parser.add_argument("--logdir", default=None)
    options = parser.parse_args()
    result = pes_rl.train(
        "unrolled:learned-optimizer",
        agent="pes",
        total_timesteps=options.total_timesteps,
        num_pairs=20,
        horizon=STEPS,
        learning_rate=0.01,
        eval_interval=options.total_timesteps // 4,
        env_kwargs={
            "hidden_sizes": [8],
            "batch_size": 32,
            "optimizer_hidden_sizes": [6],
        },
        logdir=options.logdir,
    )
    learned = pes_rl.load_optimizer(result.folder)
    for name, optimizer in (("learned", learned), ("Adam, 0.01", optax.adam(0.01))):
        print(f"{name}: loss {train_network(optimizer):.3f} after {STEPS} steps")


if __name__ == "__main__":
    main()
