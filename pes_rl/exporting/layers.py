"""A trained policy as float32 matrices, which every export format is made of."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pes_rl.agents import Policy
from pes_rl.envs.spaces import Spaces
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)

TOLERANCE = 1e-6
"""Largest difference of an exported action, in shares of the sums it comes from."""

_NUM_CHECKED = 256


@dataclass(frozen=True)
class Layers:
    """A linear policy or a network with its observation normaliser.

    For an observation o, x_0 = (o - mean) / std, x_{l+1} = f(W_l x_l + b_l) with the
    activation f, where the last layer has none. The action is its output y clipped to
    [low, high], or, with `squash`, (low + high) / 2 + (high - low) / 2 * tanh(y).

    Attributes:
        mean: Zero where training did not normalise observations. # shape=(O,)
        std: One where it did not. # shape=(O,)
        weights: W_l of each layer. # shape=(outputs, inputs)
        biases: b_l of each layer, zero in a policy without biases. # shape=(outputs,)
        activation: Name of f in `ACTIVATIONS`.
        squash: Whether tanh takes the place of clipping.
        low: Lower bounds; -inf in a policy that does not clip. # shape=(A,)
        high: Upper bounds; inf in a policy that does not clip. # shape=(A,)
    """

    mean: np.ndarray
    std: np.ndarray
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    activation: str
    squash: bool
    low: np.ndarray
    high: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """(low + high) / 2, of finite bounds. # shape=(A,)."""
        return (self.low + self.high) / 2

    @property
    def half_width(self) -> np.ndarray:
        """(high - low) / 2, of finite bounds. # shape=(A,)."""
        return (self.high - self.low) / 2

    def largest_sum(self, observations: np.ndarray) -> float:
        """The largest sum of absolute terms in any layer: the scale of rounding errors.

        Args:
            observations: # shape=(N, O)
        """
        x = np.abs((observations - self.mean) / self.std)
        sums = []
        for weights, bias in zip(self.weights, self.biases, strict=True):
            sums.append(x @ np.abs(weights).T + np.abs(bias))
            # No other activation is larger than its input in size.
            x = np.tanh(sums[-1]) if self.activation == "tanh" else sums[-1]
        scale = self.half_width.max() if self.squash else 1.0
        return max(float(each.max()) for each in sums) * max(float(scale), 1.0)


def to_layers(trained: TrainedPolicy) -> Layers:
    """The matrices of a trained policy.

    Raises:
        ValueError: If it is no linear or mlp policy.
    """
    policy = trained.policy
    if type(policy) is not Policy:
        raise ValueError(
            f"a {type(policy).__name__} cannot be exported; only linear and mlp "
            "policies can"
        )
    sizes = (policy.observation_size, *policy.hidden_sizes, policy.action_size)
    theta, weights, biases, at = trained.theta.astype(np.float32), [], [], 0
    for inputs, outputs in pairwise(sizes):
        weights.append(theta[at : at + outputs * inputs].reshape(outputs, inputs))
        at += outputs * inputs
        bias = theta[at : at + outputs] if policy.bias else np.zeros(outputs)
        biases.append(bias.astype(np.float32))
        at += len(bias) * policy.bias
    low, high = np.array([policy.action_low, policy.action_high], np.float32)
    if not (policy.clip or policy.squash):
        low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
    mean, std = trained.mean.astype(np.float32), trained.std.astype(np.float32)
    return Layers(
        mean,
        std,
        tuple(weights),
        tuple(biases),
        policy.activation,
        policy.squash,
        low,
        high,
    )


def check_export(
    trained: TrainedPolicy, layers: Layers, act: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Compare an exported policy with the original on random observations.

    The observations are drawn from the normaliser's distribution, three times as wide.

    Args:
        trained: The original.
        layers: Its matrices.
        act: The exported policy: actions [N, A] of observations [N, O], float32.

    Returns:
        The largest difference of an action.

    Raises:
        ValueError: If it is larger than rounding in float32 explains.
    """
    size = (_NUM_CHECKED, len(layers.mean))
    noise = 3 * np.random.default_rng(0).standard_normal(size)
    observations = (layers.mean + layers.std * noise).astype(np.float32)
    # Of discrete actions a file has the outputs, of which the greatest is the choice.
    outputs = replace(trained, spaces=Spaces())(observations)
    difference = float(np.abs(act(observations) - outputs).max())
    allowed = TOLERANCE * max(1.0, layers.largest_sum(observations))
    if not difference <= allowed:
        raise ValueError(
            f"the exported policy's actions differ by {difference:.1e} from those of "
            f"the original, more than {allowed:.1e}, so it was not written; please "
            "report it to the developers of pes_rl"
        )
    return difference
