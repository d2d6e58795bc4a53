"""A learned optimiser: a small network that computes the step of another's weights.

The inner problem trains a ReLU network on images. For each of its weights the optimiser
has 19 inputs. Eight are the gradient, the weight, and running means of the gradient
with 6 decays, each divided by its root mean square over the weight's tensor. Eleven
describe the time, tanh(t / tau - 1). The optimiser is a network 19 -> 32 -> 32 -> 2 of
1762 parameters, whose two outputs are a direction and a logarithmic size:

    w = w - 0.001 direction exp(0.001 size)

The PES paper trains such an optimiser for a network on CIFAR-10, with code that is not
public. The architecture is that of Metz et al. 2019 in the version of
learned_optimization and of the noise-reuse paper (Li et al. 2023).
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pes_rl.envs.unrolled.classifier import (
    ClassifierProblem,
    Network,
    first_network,
    init_network,
    training_gradient,
)
from pes_rl.envs.unrolled.images import NUM_CLASSES
from pes_rl.envs.unrolled.problem import tensor_names

DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
HIDDEN_UNITS = 32
NUM_WEIGHT_FEATURES = 2 + len(DECAYS)
STEP_SIZE = 0.001

SIZES = (NUM_WEIGHT_FEATURES + len(TIME_SCALES), HIDDEN_UNITS, HIDDEN_UNITS, 2)

# Key data, step t, the network, and the running means with a leading axis of decays.
State = tuple[jax.Array, jax.Array, Network, Network]


@dataclass(frozen=True)
class LearnedOptimizer(ClassifierProblem):
    """The parameters of a learned optimiser.

    The loss of each image is at most 1.5 log(10), as in the code of the noise-reuse
    paper, so that the loss of a step that is too long is bounded.

    Attributes:
        hidden_sizes: Units of each hidden layer of the trained network.
        batch_size: Images in a minibatch.
        horizon: Steps T of the training.
    """

    hidden_sizes: tuple[int, ...] = (32, 32, 32)
    batch_size: int = 128
    horizon: int = 1000

    @property
    def parameter_names(self) -> tuple[str, ...]:
        # In the order of `ravel_pytree`.
        names: list[str] = []
        for layer, (inputs, units) in enumerate(pairwise(SIZES)):
            names += tensor_names(f"weights {layer}", (inputs, units))
            names += tensor_names(f"bias {layer}", (units,))
        return tuple(names)

    def init_theta(self, key: jax.Array) -> jax.Array:
        return ravel_pytree(init_network(key, SIZES))[0]

    def init(self, key: jax.Array) -> State:
        key_data = jax.random.key_data(key)
        sizes = self.layer_sizes(self.hidden_sizes)
        network = first_network(key_data, sizes)
        means = jax.tree.map(lambda w: jnp.zeros((len(DECAYS), *w.shape)), network)
        return key_data, jnp.int32(0), network, means

    def step(
        self, theta: jax.Array, state: State
    ) -> tuple[State, jax.Array, jax.Array]:
        key, t, network, means = state
        learn, test = self.minibatches(key, t)
        gradient = training_gradient(network, learn)
        means = jax.tree.map(_running_means, means, gradient)
        optimizer = _unravel(theta)
        change = partial(_apply_optimizer, optimizer, _time_features(t, theta))
        network = jax.tree.map(change, network, gradient, means)
        loss = self.measure(network, test)
        return (key, t + 1, network, means), loss, jnp.array(False)

    def mean_loss(self, losses: jax.Array) -> jax.Array:
        return jnp.minimum(losses, 1.5 * math.log(NUM_CLASSES)).mean()


def _unravel(theta: jax.Array) -> Network:
    layers, start = [], 0
    for inputs, units in pairwise(SIZES):
        end = start + inputs * units
        weights = theta[start:end].reshape(inputs, units)
        layers.append((weights, theta[end : end + units]))
        start = end + units
    return tuple(layers)


def _running_means(means: jax.Array, gradient: jax.Array) -> jax.Array:
    decays = jnp.array(DECAYS, means.dtype).reshape(-1, *[1] * gradient.ndim)
    return decays * means + (1 - decays) * gradient[None]


def _time_features(t: jax.Array, like: jax.Array) -> jax.Array:
    scales = jnp.array(TIME_SCALES, like.dtype)
    return jnp.tanh(t.astype(like.dtype) / scales - 1)


def _apply_optimizer(
    optimizer: Network,
    time: jax.Array,
    weight: jax.Array,
    gradient: jax.Array,
    means: jax.Array,
) -> jax.Array:
    """A weight tensor after the optimiser's step."""
    features = jnp.concatenate([gradient[None], weight[None], means])
    features = features.reshape(NUM_WEIGHT_FEATURES, -1)
    scale = jax.lax.rsqrt(jnp.mean(features**2, axis=1, keepdims=True) + 1e-5)
    (first, first_bias), *hidden, (last, last_bias) = optimizer
    # The time is the same for all weights, so its part of the sums is computed once.
    shared = time @ first[NUM_WEIGHT_FEATURES:] + first_bias
    x = (features * scale).T @ first[:NUM_WEIGHT_FEATURES] + shared[None]
    for weights, bias in hidden:
        x = jax.nn.relu(x) @ weights + bias[None]
    direction, size = (jax.nn.relu(x) @ last + last_bias[None]).T
    change = STEP_SIZE * direction * jnp.exp(STEP_SIZE * size)
    return weight - change.reshape(weight.shape)
