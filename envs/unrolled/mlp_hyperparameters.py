"""Many hyperparameters of the training of a network, as in the PES paper's code.

A ReLU network is trained by SGD with momentum. Every block b, a weight matrix or a
bias, has its own learning rate and momentum:

    m_b = sigmoid(momentum_b) m_b + gradient_b,    w_b = w_b - exp(log rate_b) m_b

The published problem also learns the width of each of its five hidden layers: of 100
units only the first floor(100 sigmoid(width)) are used, and the sums of the others are
0. That makes 2 x 12 + 5 = 29 hyperparameters. The derivative with respect to a width is
0.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.unrolled.classifier import (
    ClassifierProblem,
    Masks,
    Network,
    Objective,
    TrainingState,
    training_gradient,
)

Range = tuple[float, float]

# Initial values are uniform, before exp and sigmoid, between those of these bounds.
FIRST_RATE = (1e-4, 1e-2)
FIRST_MOMENTUM = (0.01, 0.9)
FIRST_WIDTH = (0.2, 0.8)

# Random search draws from wider ranges, in the published code too.
SEARCHED_RATE = (1e-8, 10.0)
SEARCHED_MOMENTUM = (0.01, 0.999)
SEARCHED_WIDTH = (0.01, 0.999)


@dataclass(frozen=True)
class MLPHyperparameters(ClassifierProblem):
    """Learning rates and momenta of all blocks, and widths of the hidden layers.

    Published: Fashion-MNIST, sums of validation losses, T = 1000.

    Attributes:
        variant: `published` has five hidden layers and learns their widths, 29
            hyperparameters. `rates-and-momenta` has four hidden layers at full width:
            2 x 10 = 20 hyperparameters, and is differentiable.
        hidden_units: Units of a hidden layer.
        objective: See `ClassifierProblem`.
        horizon: Steps T of the training.
    """

    variant: Literal["published", "rates-and-momenta"] = "published"
    hidden_units: int = 100
    objective: Objective = "validation-loss"
    horizon: int = 1000

    @property
    def differentiable(self) -> bool:
        return super().differentiable and self.variant != "published"

    @property
    def hidden_layers(self) -> int:
        """Number of hidden layers."""
        return 5 if self.variant == "published" else 4

    @property
    def parameter_names(self) -> tuple[str, ...]:
        layers = range(self.hidden_layers + 1)
        blocks = [f"{part} {layer}" for layer in layers for part in ("weights", "bias")]
        rates = [f"log learning rate of {block}" for block in blocks]
        momenta = [f"logit momentum of {block}" for block in blocks]
        widths = [f"logit width of hidden layer {i}" for i in range(self._num_widths)]
        return (*rates, *momenta, *widths)

    @property
    def _num_widths(self) -> int:
        return self.hidden_layers if self.variant == "published" else 0

    @property
    def _num_blocks(self) -> int:
        return 2 * (self.hidden_layers + 1)

    def init_theta(self, key: jax.Array) -> jax.Array:
        low, high = map(
            jnp.asarray, self._ranges(FIRST_RATE, FIRST_MOMENTUM, FIRST_WIDTH)
        )
        return jax.random.uniform(key, low.shape, minval=low, maxval=high)

    @property
    def search_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return self._ranges(SEARCHED_RATE, SEARCHED_MOMENTUM, SEARCHED_WIDTH)

    def _ranges(
        self, rate: Range, momentum: Range, width: Range
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ends of these ranges, as entries of theta, [D] each."""
        kinds = (
            [[math.log(end) for end in rate]] * self._num_blocks
            + [[_logit(end) for end in momentum]] * self._num_blocks
            + [[_logit(end) for end in width]] * self._num_widths
        )
        low, high = np.array(kinds, np.float32).T
        return low, high

    def init(self, key: jax.Array) -> TrainingState:
        return self.start_training(key, (self.hidden_units,) * self.hidden_layers)

    def step(
        self, theta: jax.Array, state: TrainingState
    ) -> tuple[TrainingState, jax.Array, jax.Array]:
        key, t, network, momenta = state
        learn, test = self.minibatches(key, t)
        masks = self._masks(theta)
        gradient = training_gradient(network, learn, masks)
        blocks = self._num_blocks
        rates = _by_block(network, jnp.exp(theta[:blocks]))
        decays = _by_block(network, jax.nn.sigmoid(theta[blocks : 2 * blocks]))
        momenta = jax.tree.map(lambda m, g, d: d * m + g, momenta, gradient, decays)
        network = jax.tree.map(lambda w, m, r: w - r * m, network, momenta, rates)
        loss = self.measure(network, test, masks)
        return (key, t + 1, network, momenta), loss, jnp.array(False)

    def _masks(self, theta: jax.Array) -> Masks:
        if self.variant != "published":
            return None
        shares = jax.nn.sigmoid(theta[2 * self._num_blocks :])
        widths = jnp.floor(shares * self.hidden_units)
        units = jnp.arange(self.hidden_units, dtype=theta.dtype)
        return tuple((units < width).astype(theta.dtype) for width in widths)


def _by_block(network: Network, values: jax.Array) -> Any:
    """The values as a tree like the network, one for each weight matrix and bias."""
    leaves, structure = jax.tree.flatten(network)
    return jax.tree.unflatten(structure, [values[i] for i in range(len(leaves))])


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
