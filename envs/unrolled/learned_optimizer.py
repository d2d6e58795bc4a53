"""A learned optimiser: an update rule whose parameters are trained.

The inner problem trains a ReLU network on images by an `UpdateRule`; theta holds the
rule's parameters. The PES paper trains such an optimiser for a network on CIFAR-10,
with code that is not public. The architecture is that of Metz et al. 2019 in the
version of learned_optimization and of the noise-reuse paper (Li et al. 2023).
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pes_rl.envs.unrolled.classifier import (
    ClassifierProblem,
    Network,
    first_network,
    training_gradient,
)
from pes_rl.envs.unrolled.images import NUM_CLASSES
from pes_rl.envs.unrolled.update_rule import UpdateRule

# Key data, step t, the network, and running means of its gradient.
State = tuple[jax.Array, jax.Array, Network, Network]


@dataclass(frozen=True)
class LearnedOptimizer(ClassifierProblem):
    """The parameters of a learned optimiser.

    The loss of each image is at most 1.5 log(10), as in the noise-reuse paper's code
    for CIFAR-10, so that the loss of a step that is too long is bounded. That code's
    network on 8 x 8 images of Fashion-MNIST differs: its units are GELU, its losses
    have no bound, and every episode has the same initial network and minibatches.

    Attributes:
        hidden_sizes: Units of each hidden layer of the trained network.
        optimizer_hidden_sizes: Units of each hidden layer of the update rule; see
            `UpdateRule`.
        batch_size: Images in a minibatch.
        horizon: Steps T of the training.
    """

    hidden_sizes: tuple[int, ...] = (32, 32, 32)
    optimizer_hidden_sizes: tuple[int, ...] = (32, 32)
    batch_size: int = 128
    horizon: int = 1000

    @property
    def rule(self) -> UpdateRule:
        """The update rule that theta belongs to."""
        return UpdateRule(self.optimizer_hidden_sizes)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return self.rule.parameter_names

    def init_theta(self, key: jax.Array) -> jax.Array:
        return self.rule.init_theta(key)

    def init(self, key: jax.Array) -> State:
        key_data = jax.random.key_data(key)
        network = first_network(key_data, self.layer_sizes(self.hidden_sizes))
        t, means = self.rule.init(network)
        return key_data, t, network, means

    def step(
        self, theta: jax.Array, state: State
    ) -> tuple[State, jax.Array, jax.Array]:
        key, t, network, means = state
        learn, test = self.minibatches(key, t)
        gradient = training_gradient(network, learn)
        change, (t, means) = self.rule.update(theta, (t, means), gradient, network)
        network = jax.tree.map(jnp.subtract, network, change)
        loss = self.measure(network, test)
        return (key, t, network, means), loss, jnp.array(False)

    def mean_loss(self, losses: jax.Array) -> jax.Array:
        return jnp.minimum(losses, 1.5 * math.log(NUM_CLASSES)).mean()
