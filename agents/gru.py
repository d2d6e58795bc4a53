"""A recurrent policy: gated recurrent units (GRU) and a linear layer, from one theta.

As in `policies`, the same code runs on JAX arrays (under vmap) and on NumPy arrays (a
batch of particles), so that a trained policy also runs where JAX is not installed.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pes_rl.agents.action_bounds import bound_actions, check_squash
from pes_rl.agents.activations import sigmoid

if TYPE_CHECKING:
    import jax

Array = Any  # a JAX or a NumPy array


@dataclass(frozen=True)
class GRUPolicy:
    """A policy with a memory: GRU layers, then a linear layer to the action.

    The memory is a vector h, the carry, which starts at 0 with every episode. A layer
    with input x computes (Cho et al. 2014, arXiv 1406.1078, in the variant of cuDNN,
    flax's `GRUCell` and PyTorch's `GRU`, whose reset gate acts on W h + b)

        r = sigmoid(U_r x + b_r + W_r h)
        z = sigmoid(U_z x + b_z + W_z h)
        n = tanh(U_n x + b_n + r (W_n h + c))
        h' = (1 - z) n + z h

    and h' is the input of the next layer. theta holds for each layer U (rows of r, z,
    n), W (the same), b (the same) and c, then the last layer's weights and bias.

    Attributes:
        observation_size: O.
        action_low: Lower bounds of the action, A numbers.
        action_high: Upper bounds of the action, A numbers.
        hidden_sizes: Units of each GRU layer, one at least.
        bias: Whether layers have the biases b and c, and the last layer one.
        clip: Whether actions are clipped to their bounds.
        squash: Whether tanh, scaled to finite bounds, takes the place of clipping.

    Example:
        >>> policy = GRUPolicy(2, (-1.0,), (1.0,), hidden_sizes=(4,))
        >>> theta = np.zeros(policy.num_parameters, np.float32)
        >>> carry, action = policy.act(theta, policy.initial_carry(), np.ones(2))
        >>> carry.shape, action
        ((4,), array([0.]))
    """

    observation_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    hidden_sizes: tuple[int, ...] = (32,)
    bias: bool = True
    clip: bool = True
    squash: bool = False

    def __post_init__(self) -> None:
        if not self.hidden_sizes or any(size < 1 for size in self.hidden_sizes):
            raise ValueError(
                f"hidden_sizes={self.hidden_sizes} must be one layer or more, of at "
                "least 1 unit each; use (32,), for example"
            )
        if self.squash:
            check_squash(self.action_low, self.action_high)

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.action_low)

    @cached_property
    def _layer_sizes(self) -> list[tuple[int, int]]:
        """(inputs, units) of each GRU layer."""
        return list(pairwise((self.observation_size, *self.hidden_sizes)))

    @property
    def num_parameters(self) -> int:
        """D, the length of theta."""
        recurrent = sum(
            3 * units * (inputs + units) + 4 * units * self.bias
            for inputs, units in self._layer_sizes
        )
        return recurrent + self.action_size * (self.hidden_sizes[-1] + self.bias)

    def init(self, key: "jax.Array") -> "jax.Array":
        """First theta: U from N(0, 1 / fan-in), W orthogonal by gate, all else zero.

        The last layer is zero, so its output is 0 for every observation.

        Returns:
            # shape=(D,), dtype=float32
        """
        import jax
        import jax.numpy as jnp

        orthogonal = jax.nn.initializers.orthogonal()
        parts = []
        for inputs, units in self._layer_sizes:
            key, input_key, *gate_keys = jax.random.split(key, 5)
            weights = jax.random.normal(input_key, (3 * units * inputs,))
            parts.append(weights / math.sqrt(inputs))
            parts += [orthogonal(k, (units, units)).ravel() for k in gate_keys]
            parts.append(jnp.zeros(4 * units * self.bias))
        last = self.action_size * (self.hidden_sizes[-1] + self.bias)
        return jnp.concatenate([*parts, jnp.zeros(last)])

    def initial_carry(self) -> np.ndarray:
        """The carry of one particle at the start of an episode: zeros.

        Returns:
            # shape=(H,), dtype=float32, for H units in all layers
        """
        return np.zeros(sum(self.hidden_sizes), np.float32)

    def act(
        self, theta: Array, carry: Array, observation: Array
    ) -> tuple[Array, Array]:
        """Next carry and action of one particle, or of each of a batch.

        Args:
            theta: Parameters. # shape=(D,) or (N, D)
            carry: # shape=(H,) or (N, H)
            observation: # shape=(O,) or (N, O)

        Returns:
            (carry, actions in the environment's units). # shape=(A,) or (N, A)
        """
        xp = theta.__array_namespace__()
        parameters = _Reader(theta)
        x, carries, first = observation, [], 0
        for inputs, units in self._layer_sizes:
            h = carry[..., first : first + units]
            of_input = xp.vecdot(parameters.matrix(3 * units, inputs), x[..., None, :])
            of_carry = xp.vecdot(parameters.matrix(3 * units, units), h[..., None, :])
            candidate = of_carry[..., 2 * units :]
            if self.bias:
                of_input = of_input + parameters.vector(3 * units)
                candidate = candidate + parameters.vector(units)
            gates = of_input[..., : 2 * units] + of_carry[..., : 2 * units]
            gates = sigmoid(gates)
            reset, update = gates[..., :units], gates[..., units:]
            new = xp.tanh(of_input[..., 2 * units :] + reset * candidate)
            x = (1 - update) * new + update * h
            carries.append(x)
            first += units
        output = xp.vecdot(
            parameters.matrix(self.action_size, self.hidden_sizes[-1]), x[..., None, :]
        )
        if self.bias:
            output = output + parameters.vector(self.action_size)
        actions = bound_actions(
            output,
            self.action_low,
            self.action_high,
            clip=self.clip,
            squash=self.squash,
        )
        return xp.concat(carries, axis=-1), actions


class _Reader:
    """Cuts matrices and vectors off the front of theta, one after another."""

    def __init__(self, theta: Array) -> None:
        self._theta, self._offset = theta, 0

    def vector(self, size: int) -> Array:
        first, self._offset = self._offset, self._offset + size
        return self._theta[..., first : self._offset]

    def matrix(self, rows: int, cols: int) -> Array:
        numbers = self.vector(rows * cols)
        return numbers.reshape(*numbers.shape[:-1], rows, cols)
