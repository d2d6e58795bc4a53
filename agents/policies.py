"""Policies: deterministic functions of a flat parameter vector and an observation.

The same code runs on JAX arrays (device environments, under vmap) and on NumPy arrays
(host environments, a batch of particles at once), because a JAX dispatch at each step
is too slow for the host loop, and because a trained policy also runs where JAX is not
installed: only `Policy.init` imports it.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pes_rl.agents.action_bounds import bound_actions, check_squash
from pes_rl.agents.activations import ACTIVATIONS

if TYPE_CHECKING:
    import jax

Array = Any  # a JAX or a NumPy array


@dataclass(frozen=True)
class Policy:
    """A linear map or a feed-forward network, from observations to actions.

    Without hidden layers the action is W o (+ b). With them, each hidden layer is
    activation(W x + b), and the last layer is linear. theta holds, layer by layer, W in
    row order and then b.

    The last layer's output is the action in the environment's own units. With `clip` it
    is clipped to [low, high], as users of Stable-Baselines3 and Gymnasium expect of a
    continuous policy: an environment never gets an action outside its space, and
    charges no cost for one. Without, it is passed on unchanged, as ARS and the PES
    paper do; MuJoCo then clips the control itself, but a control cost is computed from
    the whole action. With `squash` the output goes through tanh, scaled to the bounds.

    Attributes:
        observation_size: O.
        action_low: Lower bounds of the action, A numbers.
        action_high: Upper bounds of the action, A numbers.
        hidden_sizes: Units of each hidden layer; none for a linear policy.
        bias: Whether layers have a bias.
        clip: Whether actions are clipped to their bounds.
        activation: Of the hidden layers: `tanh`, `relu`, `elu` or `silu`.
        squash: Whether tanh, scaled to finite bounds, takes the place of clipping.

    Example:
        >>> import numpy as np
        >>> policy = Policy(observation_size=2, action_low=(-1.0,), action_high=(1.0,))
        >>> theta = np.array([0.5, 1.0, 0.25])  # two weights and a bias
        >>> policy.act(theta, np.array([1.0, -0.5])).tolist()
        [0.25]
        >>> policy.act(theta, np.array([2.0, 2.0])).tolist()  # clipped
        [1.0]
    """

    observation_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    hidden_sizes: tuple[int, ...] = ()
    bias: bool = True
    clip: bool = True
    activation: str = "tanh"
    squash: bool = False

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(
                f"hidden_sizes={self.hidden_sizes} must all be at least 1 unit; "
                "use (32, 32), for example, or () for a linear policy"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation={self.activation!r} is unknown; use one of: "
                f"{', '.join(ACTIVATIONS)}"
            )
        if self.squash:
            check_squash(self.action_low, self.action_high)

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.action_low)

    @cached_property
    def _layer_shapes(self) -> list[tuple[int, int]]:
        sizes = (self.observation_size, *self.hidden_sizes, self.action_size)
        return [(rows, cols) for cols, rows in pairwise(sizes)]

    @property
    def num_parameters(self) -> int:
        """D, the length of theta."""
        return sum(rows * (cols + self.bias) for rows, cols in self._layer_shapes)

    def init(self, key: "jax.Array") -> "jax.Array":
        """First theta: hidden weights from N(0, 1 / fan-in), all else zero.

        The last layer is zero, so its output is 0 for every observation.

        Returns:
            # shape=(D,), dtype=float32
        """
        import jax
        import jax.numpy as jnp

        parts = []
        *hidden, last = self._layer_shapes
        for rows, cols in hidden:
            key, layer_key = jax.random.split(key)
            weights = jax.random.normal(layer_key, (rows * cols,)) / math.sqrt(cols)
            parts += [weights, jnp.zeros(rows * self.bias)]
        rows, cols = last
        return jnp.concatenate([*parts, jnp.zeros(rows * (cols + self.bias))])

    def act(self, theta: Array, observation: Array) -> Array:
        """Action of one particle, or of each of a batch.

        Args:
            theta: Parameters. # shape=(D,) or (N, D)
            observation: # shape=(O,) or (N, O)

        Returns:
            Actions in the environment's units. # shape=(A,) or (N, A)
        """
        xp = theta.__array_namespace__()
        x, offset, activate = observation, 0, ACTIVATIONS[self.activation]
        for layer, (rows, cols) in enumerate(self._layer_shapes):
            if layer > 0:
                x = activate(x)
            weights = theta[..., offset : offset + rows * cols]
            weights = weights.reshape(*weights.shape[:-1], rows, cols)
            x = xp.vecdot(weights, x[..., None, :])
            offset += rows * cols
            if self.bias:
                x = x + theta[..., offset : offset + rows]
                offset += rows
        return bound_actions(
            x, self.action_low, self.action_high, clip=self.clip, squash=self.squash
        )
