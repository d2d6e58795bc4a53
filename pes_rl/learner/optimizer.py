"""The optimiser: how theta moves along a gradient estimate."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from pes_rl.learner.schedules import Schedule, value_at


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimiser, with the schedule of its learning rate.

        theta <- theta - rate (transform(gradient) + weight_decay theta)

    Attributes:
        optimizer: `sgd` or `adam`, from optax. The expected step of Adam is not along
            the gradient: Adam divides by the size of the same estimates.
        learning_rate: At the start; or a function of the progress, which then is the
            whole schedule.
        decay: `constant`, or `linear` to 0 as the budget is used.
        normalize_returns: Apply `normalize_by_return_std` to the gradient first.
        weight_decay: Weight of theta in the step, after the optimiser as in AdamW. The
            optimum moves towards 0: with SGD, to that of the loss plus
            weight_decay / 2 |theta|^2.
        adam_b1: Decay rate of Adam's running mean of the gradient.
    """

    optimizer: Literal["sgd", "adam"]
    learning_rate: float | Schedule
    decay: Literal["constant", "linear"] = "constant"
    normalize_returns: bool = False
    weight_decay: float = 0.0
    adam_b1: float = 0.9

    def transform(self) -> optax.GradientTransformation:
        """The optax transformation, without its learning rate.

        optax's schedules count updates; here they follow environment steps, so the
        learner multiplies by the learning rate.
        """
        if self.optimizer == "adam":
            return optax.scale_by_adam(b1=self.adam_b1)
        return optax.identity()

    def learning_rate_at(self, progress: jax.Array) -> jax.Array:
        """Learning rate when the share `progress` of the budget is used."""
        if callable(self.learning_rate):
            return value_at(self.learning_rate, progress)
        remaining = jnp.maximum(1.0 - progress, 0.0)
        return self.learning_rate * (
            remaining if self.decay == "linear" else jnp.ones_like(remaining)
        )
