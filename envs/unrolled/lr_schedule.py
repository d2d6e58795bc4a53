"""The learning-rate schedule of the PES paper for training a network on images.

The learning rate of step t = 0, ..., T - 1 is exp(theta0) / (1 + t / T)^exp(theta1).
The optimiser is SGD with momentum 0.9 and weight decay 1e-10, defined as in PyTorch:

    m = 0.9 m + (gradient + 1e-10 w),    w = w - rate m
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from pes_rl.envs.unrolled.classifier import (
    ClassifierProblem,
    TrainingState,
    training_gradient,
)

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-10


@dataclass(frozen=True)
class LearningRateSchedule(ClassifierProblem):
    """The first learning rate and the decay of a schedule.

    Published: MNIST, two hidden layers of 100 units, T = 5000.

    Attributes:
        hidden_sizes: Units of each hidden layer.
        horizon: Steps T of the training.
    """

    hidden_sizes: tuple[int, ...] = (100, 100)
    horizon: int = 5000

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return ("log first learning rate", "log decay")

    def init_theta(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.array([math.log(0.003), math.log(30.0)])

    def init(self, key: jax.Array) -> TrainingState:
        return self.start_training(key, self.hidden_sizes)

    def step(
        self, theta: jax.Array, state: TrainingState
    ) -> tuple[TrainingState, jax.Array, jax.Array]:
        key, t, network, momenta = state
        learn, test = self.minibatches(key, t)
        gradient = training_gradient(network, learn)
        age = 1 + t.astype(theta.dtype) / self.horizon
        rate = jnp.exp(theta[0]) / age ** jnp.exp(theta[1])
        momenta = jax.tree.map(
            lambda m, g, w: MOMENTUM * m + g + WEIGHT_DECAY * w,
            momenta,
            gradient,
            network,
        )
        network = jax.tree.map(lambda w, m: w - rate * m, network, momenta)
        loss = self.measure(network, test)
        return (key, t + 1, network, momenta), loss, jnp.array(False)
