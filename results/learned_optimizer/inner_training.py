"""Training of the network of `unrolled:learned-optimizer` by any optimiser of optax.

The initial networks and minibatches are those of the environment's episodes, and so are
the losses: an optimiser's sum here stands beside the loss of a learned one there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from pes_rl.analysis.output import Row
from pes_rl.envs.unrolled.classifier import first_network, training_gradient
from pes_rl.envs.unrolled.learned_optimizer import LearnedOptimizer

RATES = tuple(10.0 ** (power / 2) for power in range(-8, 0))
"""The grid of Adam's rate: two a decade, from 0.0001 to 0.3."""
UNTUNED = 0.001
"""Adam's rate where nothing is tuned, the default of its authors."""
TUNING_EPISODES = tuple(range(1000, 1005))
"""Episodes on which a rate is chosen; none is used for anything else."""


@dataclass(frozen=True)
class Losses:
    """Losses after each step, on a training and on a validation minibatch.

    Attributes:
        training: # shape=(..., episodes, T)
        validation: # shape=(..., episodes, T)
    """

    training: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True)
class Adam:
    """Adam at a first rate, which stays or falls to 0 as a half cosine.

    Attributes:
        rate: The first rate.
        falls: Whether it falls.
    """

    rate: Any
    falls: bool = False

    def transformation(self, horizon: int) -> optax.GradientTransformation:
        """The optimiser of a training of so many steps."""
        if not self.falls:
            return optax.adam(self.rate)
        return optax.adam(lambda t: self.rate * (1 + jnp.cos(jnp.pi * t / horizon)) / 2)

    def __str__(self) -> str:
        return f"Adam, {self.rate:.2g}{' falling' if self.falls else ''}"


def train(
    problem: LearnedOptimizer,
    optimizer: optax.GradientTransformation,
    episodes: Sequence[int],
) -> Losses:
    """Train one network in each episode.

    Args:
        problem: The inner problem.
        optimizer: What trains it.
        episodes: Seeds of initial networks and minibatches.
    """
    run = jax.jit(jax.vmap(partial(_train, problem, optimizer)))
    return _as_losses(run(_keys(episodes)))


def train_by_grid(
    problem: LearnedOptimizer, falls: bool, episodes: Sequence[int]
) -> Losses:
    """The same by Adam at each of `RATES`, which are the first axis of the losses."""

    def at(rate: jax.Array) -> jax.Array:
        optimizer = Adam(rate, falls).transformation(problem.horizon)
        return jax.vmap(partial(_train, problem, optimizer))(_keys(episodes))

    return _as_losses(jax.jit(jax.vmap(at))(jnp.array(RATES, jnp.float32)))


def best_rate(losses: Losses) -> float:
    """The rate of the grid whose summed training loss is lowest; never one with NaN.

    Args:
        losses: Those at each of `RATES`. # shape=(rates, episodes, T)
    """
    return RATES[int(summed(losses).argmin())]


def summed(losses: Losses) -> np.ndarray:
    """Mean over episodes of the summed training loss, and infinity in place of NaN."""
    return np.nan_to_num(losses.training.sum(-1).mean(-1), nan=np.inf)


@cache
def tune(problem: LearnedOptimizer) -> Adam:
    """Adam at its best rate, constant or falling, on `TUNING_EPISODES`."""
    tuned = {}
    for falls in (False, True):
        losses = train_by_grid(problem, falls, TUNING_EPISODES)
        tuned[summed(losses).min()] = Adam(best_rate(losses), falls)
    return tuned[min(tuned)]


def episode_rows(losses: Losses, **columns: Any) -> list[Row]:
    """A row for each episode: summed losses, and the mean one of the last tenth.

    Args:
        losses: # shape=(episodes, T)
        columns: What else stands in every row.
    """
    last = -(-losses.training.shape[1] // 10)
    return [
        {
            **columns,
            "episode": episode,
            "training_loss": float(training.sum()),
            "validation_loss": float(validation.sum()),
            "last_validation_loss": float(validation[-last:].mean()),
        }
        for episode, (training, validation) in enumerate(
            zip(losses.training, losses.validation, strict=True)
        )
    ]


def curve_rows(losses: Losses, points: int = 50, **columns: Any) -> list[Row]:
    """A row for each of some consecutive parts of the training, with its mean losses.

    Args:
        losses: # shape=(episodes, T)
        points: Number of parts, at most.
        columns: What else stands in every row.
    """
    parts = np.array_split(np.arange(losses.training.shape[1]), points)
    return [
        {
            **columns,
            "step": int(part[-1]) + 1,
            "training_loss": float(losses.training[:, part].mean()),
            "validation_loss": float(losses.validation[:, part].mean()),
        }
        for part in parts
        if len(part)
    ]


def num_weights(problem: LearnedOptimizer) -> int:
    """Number of weights of the network that is trained, biases included."""
    sizes = problem.layer_sizes(problem.hidden_sizes)
    return sum((n + 1) * m for n, m in pairwise(sizes))


def _keys(episodes: Sequence[int]) -> jax.Array:
    return jax.vmap(jax.random.key)(jnp.array(episodes, jnp.uint32))


def _train(
    problem: LearnedOptimizer, optimizer: optax.GradientTransformation, key: jax.Array
) -> jax.Array:
    """Training and validation losses after each step. # shape=(T, 2)."""
    key_data = jax.random.key_data(key)
    measured = [
        replace(problem, objective=objective)
        for objective in ("training-loss", "validation-loss")
    ]
    network = first_network(key_data, problem.layer_sizes(problem.hidden_sizes))

    def step(carry: Any, t: jax.Array) -> tuple[Any, jax.Array]:
        network, state = carry
        batches = [each.minibatches(key_data, t) for each in measured]
        gradient = training_gradient(network, batches[0][0])
        change, state = optimizer.update(gradient, state, network)
        network = jax.tree.map(jnp.add, network, change)
        losses = [problem.measure(network, test) for _, test in batches]
        return (network, state), jnp.stack(losses)

    steps = jnp.arange(problem.horizon, dtype=jnp.int32)
    return lax.scan(step, (network, optimizer.init(network)), steps)[1]


def _as_losses(losses: jax.Array) -> Losses:
    both = np.asarray(losses)
    return Losses(both[..., 0], both[..., 1])
