"""Policies made of a network of the user's, on a flat theta.

On a device they are traced like the built-in ones. On the host, where simulations are
stepped in NumPy, each step calls one jitted, vmapped function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pes_rl.agents.action_bounds import bound_actions, check_squash
from pes_rl.agents.networks.host_batch import HostBatch
from pes_rl.agents.networks.network import Network, as_network

Array = Any  # a JAX or a NumPy array


@dataclass(frozen=True)
class _OfNetwork:
    """What policies with and without a carry share.

    Attributes:
        name: Name of the network, as in the settings of a run.
        network: The network; `apply` gives an output [A] in float32.
        observation_size: O.
        action_low: Lower bounds of the action, A numbers.
        action_high: Upper bounds of the action, A numbers.
        clip: Whether actions are clipped to their bounds.
        squash: Whether tanh, scaled to finite bounds, takes the place of clipping.

    Raises:
        ValueError: If parameters are not in float32, or the output is not [A].
    """

    name: str
    network: Network
    observation_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    clip: bool = True
    squash: bool = False

    def __post_init__(self) -> None:
        if self.squash:
            check_squash(self.action_low, self.action_high)
        try:
            template = self._template
            self._check_output(template)
        except ValueError:
            raise
        except Exception as error:  # Whatever the user's code raises.
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"policy {self.name} fails on an observation of shape "
                f"({self.observation_size},): {type(error).__name__}: {reason}"
            ) from error

    @property
    def action_size(self) -> int:
        """A."""
        return len(self.action_low)

    @property
    def num_parameters(self) -> int:
        """D, the length of theta."""
        return self._flattening[0]

    def init(self, key: jax.Array) -> jax.Array:
        """First theta: the network's own initialisation.

        Its last layer is zero only where the network makes it so.

        Returns:
            # shape=(D,), dtype=float32
        """
        return self._init(key)

    @cached_property
    def _init(self) -> Callable[[jax.Array], jax.Array]:
        return jax.jit(lambda key: ravel_pytree(self.network.init(key))[0])

    @cached_property
    def _template(self) -> Any:
        """Parameters, for their structure."""
        template = self.network.init(jax.random.key(0))
        leaves = jax.tree.leaves(template)
        wrong = {str(jnp.asarray(leaf).dtype) for leaf in leaves} - {"float32"}
        if wrong or not leaves:
            found = f"of type {', '.join(sorted(wrong))}" if wrong else "none at all"
            raise ValueError(
                f"policy {self.name} has parameters {found}; use float32 ones"
            )
        return template

    @cached_property
    def _flattening(self) -> tuple[int, Callable[[jax.Array], Any]]:
        flat, unravel = ravel_pytree(self._template)
        return flat.size, unravel

    @property
    def _inputs(self) -> tuple[Any, ...]:
        """Inputs of the network besides its parameters, for their shapes."""
        return (jnp.zeros(self.observation_size),)

    def _check_output(self, template: Any) -> None:
        self._check_action(jax.eval_shape(self.network.apply, template, *self._inputs))

    def _check_action(self, output: Any) -> None:
        shape, dtype = getattr(output, "shape", None), getattr(output, "dtype", None)
        if shape != (self.action_size,) or dtype != jnp.float32:
            found = "no array" if shape is None else f"{dtype} of shape {shape}"
            raise ValueError(
                f"policy {self.name} gives {found} for one observation of shape "
                f"({self.observation_size},), and the environment's action needs "
                f"float32 of shape ({self.action_size},); a constructor that names "
                "action_size is given it"
            )

    def _bounded(self, output: jax.Array) -> jax.Array:
        return bound_actions(
            output,
            self.action_low,
            self.action_high,
            clip=self.clip,
            squash=self.squash,
        )

    def _act_one(self, theta: jax.Array, *inputs: Any) -> Any:
        raise NotImplementedError

    @cached_property
    def _on_host(self) -> HostBatch:
        return HostBatch(self._act_one)

    def _act(self, theta: Array, *inputs: Any) -> Any:
        if isinstance(theta, np.ndarray):
            return self._on_host(theta, *inputs)
        act = self._act_one if theta.ndim == 1 else jax.vmap(self._act_one)
        return act(theta, *inputs)


@dataclass(frozen=True)
class NetworkPolicy(_OfNetwork):
    """A policy made of a network without a carry; attributes as in `_OfNetwork`."""

    def act(self, theta: Array, observation: Array) -> Array:
        """Action of one particle, or of each of a batch; as `Policy.act`."""
        return self._act(theta, observation)

    def _act_one(self, theta: jax.Array, *inputs: Any) -> jax.Array:
        _, unravel = self._flattening
        return self._bounded(self.network.apply(unravel(theta), *inputs))


@dataclass(frozen=True)
class RecurrentNetworkPolicy(_OfNetwork):
    """A policy made of a network with a carry; attributes as in `_OfNetwork`."""

    def initial_carry(self) -> Any:
        """The carry of one particle at the start of an episode."""
        assert self.network.initial_carry is not None
        return self.network.initial_carry()

    def act(self, theta: Array, carry: Any, observation: Array) -> tuple[Any, Array]:
        """Next carry and action of one particle, or of each of a batch.

        As `GRUPolicy.act`; the carry is any pytree of arrays.
        """
        return self._act(theta, carry, observation)

    def _act_one(self, theta: jax.Array, *inputs: Any) -> tuple[Any, jax.Array]:
        _, unravel = self._flattening
        carry, output = self.network.apply(unravel(theta), *inputs)
        return carry, self._bounded(output)

    @property
    def _inputs(self) -> tuple[Any, ...]:
        return (jax.tree.map(jnp.asarray, self.initial_carry()), *super()._inputs)

    def _check_output(self, template: Any) -> None:
        result = jax.eval_shape(self.network.apply, template, *self._inputs)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(
                f"policy {self.name} has an initial_carry, so it must return "
                "(carry, output)"
            )
        before, after = (
            jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", carry)
            for carry in (self._inputs[0], result[0])
        )
        if before != after:
            raise ValueError(
                f"policy {self.name} begins with a carry {before} and returns {after}; "
                "both must have the same structure, shapes and types"
            )
        self._check_action(result[1])


def make_network_policy(
    name: str,
    given: Any,
    observation_size: int,
    action_low: tuple[float, ...],
    action_high: tuple[float, ...],
    *,
    clip: bool = True,
    squash: bool = False,
) -> NetworkPolicy | RecurrentNetworkPolicy:
    """Make the policy of a network; see `as_network` for what `given` may be.

    It is recurrent where the network has an `initial_carry`.

    Raises:
        ValueError: If `given` is no network, or does not fit these sizes.

    Example:
        >>> init = lambda key: jax.random.normal(key, (1, 3))
        >>> apply = lambda weights, observation: jnp.tanh(weights @ observation)
        >>> policy = make_network_policy("mine", (init, apply), 3, (-1.0,), (1.0,))
        >>> policy.num_parameters
        3
    """
    network = as_network(given, observation_size, len(action_low))
    kind = NetworkPolicy if network.initial_carry is None else RecurrentNetworkPolicy
    return kind(name, network, observation_size, action_low, action_high, clip, squash)
