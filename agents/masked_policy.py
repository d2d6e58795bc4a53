"""A policy that sees some entries of the observation alone."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pes_rl.agents.policies import Array, Policy

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True)
class MaskedPolicy:
    """A policy of all O observations whose weights of the hidden ones are 0.

    Training searches among the other weights alone: D is smaller, and so is the
    variance of an estimate, which is proportional to it. `unmask` gives the policy with
    the zeros written out, which is an ordinary one.

    Attributes:
        policy: What acts, on the visible entries.
        visible: Indices of the entries it sees, in its order.
        observation_size: O, of the whole observation.

    Example:
        >>> seen = Policy(observation_size=2, action_low=(-9.0,), action_high=(9.0,))
        >>> policy = MaskedPolicy(seen, visible=(0, 2), observation_size=3)
        >>> theta = np.array([1.0, 2.0, 0.5])  # two weights and a bias
        >>> policy.act(theta, np.array([1.0, 100.0, 1.0])).tolist()
        [3.5]
        >>> policy.unmask(theta)[1].tolist()
        [1.0, 0.0, 2.0, 0.5]
    """

    policy: Policy
    visible: tuple[int, ...]
    observation_size: int

    @property
    def action_low(self) -> tuple[float, ...]:
        """Lower bounds of the action, A numbers."""
        return self.policy.action_low

    @property
    def action_high(self) -> tuple[float, ...]:
        """Upper bounds of the action, A numbers."""
        return self.policy.action_high

    @property
    def action_size(self) -> int:
        """A."""
        return self.policy.action_size

    @property
    def num_parameters(self) -> int:
        """D, the length of theta, without the zeros."""
        return self.policy.num_parameters

    @cached_property
    def _index(self) -> slice | np.ndarray:
        """The visible entries; a range of them as a slice, which copies nothing."""
        first, last = self.visible[0], self.visible[-1]
        is_range = self.visible == tuple(range(first, last + 1))
        return slice(first, last + 1) if is_range else np.array(self.visible)

    def init(self, key: "jax.Array") -> "jax.Array":
        """First theta of the policy. # shape=(D,), dtype=float32."""
        return self.policy.init(key)

    def act(self, theta: Array, observation: Array) -> Array:
        """Same as `Policy.act`, of whole observations. # shape=(A,) or (N, A)."""
        return self.policy.act(theta, observation[..., self._index])

    def unmask(self, theta: Any) -> tuple[Policy, np.ndarray]:
        """The ordinary policy of all O entries, and its theta, with the zeros in it."""
        whole = replace(self.policy, observation_size=self.observation_size)
        theta = np.asarray(theta)
        rows = (*self.policy.hidden_sizes, self.action_size)[0]
        end = rows * len(self.visible)
        first_layer = np.zeros((rows, self.observation_size), theta.dtype)
        first_layer[:, self.visible] = theta[:end].reshape(rows, -1)
        return whole, np.concatenate([first_layer.ravel(), theta[end:]])
