"""A learned update rule: a small network that computes the steps of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from pes_rl.envs.unrolled.classifier import Network, init_network
from pes_rl.envs.unrolled.problem import tensor_names

DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
NUM_WEIGHT_FEATURES = 2 + len(DECAYS)
STEP_SIZE = 0.001

State = tuple[jax.Array, Any]
"""Step t, and running means of the gradient with a leading axis of decays."""


@dataclass(frozen=True)
class UpdateRule:
    """A network from 19 features of a weight to the change of that weight.

    Eight features are the gradient, the weight, and running means of the gradient with
    6 decays, each divided by its root mean square over the weight's tensor. Eleven
    describe the time, tanh(t / tau - 1). The two outputs are a direction and a
    logarithmic size:

        w = w - 0.001 direction exp(0.001 size)

    Attributes:
        hidden_sizes: Units of each hidden layer. (32, 32) has 1762 parameters, (6,)
            has 134.
    """

    hidden_sizes: Sequence[int] = (32, 32)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of every layer, inputs and outputs included."""
        return (NUM_WEIGHT_FEATURES + len(TIME_SCALES), *self.hidden_sizes, 2)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Name of each entry of theta, in the order of `ravel_pytree`."""
        names: list[str] = []
        for layer, (inputs, units) in enumerate(pairwise(self.sizes)):
            names += tensor_names(f"weights {layer}", (inputs, units))
            names += tensor_names(f"bias {layer}", (units,))
        return tuple(names)

    def init_theta(self, key: jax.Array) -> jax.Array:
        """Initial parameters of the rule. # shape=(D,)."""
        return ravel_pytree(init_network(key, self.sizes))[0]

    def init(self, weights: Any) -> State:
        """State before the first step of the training of these weights."""
        zeros = jax.tree.map(lambda w: jnp.zeros((len(DECAYS), *w.shape)), weights)
        return jnp.int32(0), zeros

    def update(
        self, theta: jax.Array, state: State, gradient: Any, weights: Any
    ) -> tuple[Any, State]:
        """What is subtracted from each weight in this step, and the next state."""
        t, means = state
        # Without the barrier XLA computes the means again for each unit of the rule.
        means = lax.optimization_barrier(jax.tree.map(_running_means, means, gradient))
        change = partial(_change, self._unravel(theta), _time_features(t, theta))
        return jax.tree.map(change, weights, gradient, means), (t + 1, means)

    def transformation(self, theta: Any) -> optax.GradientTransformation:
        """The rule with these parameters, as a transformation of optax.

        Its `update` needs the weights (`params`), and includes the sign of the step:
        `optax.apply_updates(params, updates)` is all that follows.
        """
        theta = jnp.asarray(theta, jnp.float32)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            if params is None:
                raise ValueError(
                    "a learned optimiser also needs the weights; call "
                    "update(gradient, state, params)"
                )
            change, state = self.update(theta, state, updates, params)
            return jax.tree.map(jnp.negative, change), state

        return optax.GradientTransformation(lambda params: self.init(params), update)

    def _unravel(self, theta: jax.Array) -> Network:
        layers, start = [], 0
        for inputs, units in pairwise(self.sizes):
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


def _change(
    rule: Network,
    time: jax.Array,
    weight: jax.Array,
    gradient: jax.Array,
    means: jax.Array,
) -> jax.Array:
    """What is subtracted from a tensor of weights."""
    parts = [part.reshape(-1, weight.size) for part in (gradient, weight, means)]
    features = [row for part in parts for row in part]
    scales = jnp.concatenate([_scales(part) for part in parts])
    (first, first_bias), *layers = rule
    # The time is the same for all weights, so its part of the sums is computed once.
    shared = time @ first[NUM_WEIGHT_FEATURES:] + first_bias
    scaled = first[:NUM_WEIGHT_FEATURES] * scales[:, None]
    x: Any = _first_layer(scaled, shared, features)
    for weights, bias in layers[:-1]:
        x = weights.T @ jax.nn.relu(x) + bias[:, None]
    for weights, bias in layers[-1:]:
        x = _last_layer(weights, bias, jax.nn.relu(x))
    direction, size = x
    change = STEP_SIZE * direction * jnp.exp(STEP_SIZE * size)
    return change.reshape(weight.shape)


# Products with a side of a few entries are slow on a CPU. Those of the first and of the
# last layer are written out, so that XLA joins them to what is around them. Their
# derivatives are products as usual: written out as well, XLA takes twice the time to
# compile the gradient, and twice to compute it.


@jax.custom_jvp
def _first_layer(
    weights: jax.Array, bias: jax.Array, features: list[jax.Array]
) -> jax.Array:
    """Sums of the first units from a list of features. # shape=(units, n)."""
    x: Any = bias[:, None]
    for row, feature in zip(weights, features, strict=True):
        x = x + row[:, None] * feature[None]
    return x


@_first_layer.defjvp
def _first_layer_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (weights, _, features), (d_weights, d_bias, d_features) = primals, tangents
    change = d_weights.T @ jnp.stack(features) + weights.T @ jnp.stack(d_features)
    return _first_layer(*primals), change + d_bias[:, None]


@jax.custom_jvp
def _last_layer(
    weights: jax.Array, bias: jax.Array, units: jax.Array
) -> list[jax.Array]:
    """Outputs of the last layer, each # shape=(n,)."""
    outputs: Any = [
        sum((w * unit for w, unit in zip(column, units, strict=True)), start=b)
        for column, b in zip(weights.T, bias, strict=True)
    ]
    return outputs


@_last_layer.defjvp
def _last_layer_jvp(
    primals: Any, tangents: Any
) -> tuple[list[jax.Array], list[jax.Array]]:
    (weights, _, units), (d_weights, d_bias, d_units) = primals, tangents
    change = d_weights.T @ units + weights.T @ d_units + d_bias[:, None]
    return _last_layer(*primals), list(change)


def _scales(features: jax.Array) -> jax.Array:
    """What divides each row by its root mean square."""
    # As products, which XLA adds up in another order, faster on a CPU than its sums.
    squares = jnp.einsum("kn,kn->k", features, features, precision="highest")
    return lax.rsqrt(squares / features.shape[1] + 1e-5)
