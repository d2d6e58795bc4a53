"""How theta moves along a gradient estimate."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax


@dataclass(frozen=True)
class Step:
    """How theta moves along a gradient estimate.

    Attributes:
        optimizer: `sgd` or `adam`, optax's. Adam's direction is no unbiased estimate of
            the gradient's: it divides by the size of the same estimates.
        learning_rate: At the start.
        decay: `constant`, or `linear` to 0 as the budget is used.
        normalize_returns: Apply `normalize_by_return_std` first.
        weight_decay: Added to the direction, times theta, after the optimiser (as in
            AdamW): the optimum moves towards 0, to that of the loss plus
            weight_decay / 2 |theta|^2 where the direction is the gradient.
        adam_b1: How much of its running mean of the gradient `adam` keeps in a step.
    """

    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    decay: Literal["constant", "linear"] = "constant"
    normalize_returns: bool = False
    weight_decay: float = 0.0
    adam_b1: float = 0.9

    def direction(self) -> optax.GradientTransformation:
        """The optimiser without its learning rate.

        optax's schedules count updates; ours follows environment steps, so the rate is
        multiplied in by the learner.
        """
        if self.optimizer == "adam":
            return optax.scale_by_adam(b1=self.adam_b1)
        return optax.identity()

    def learning_rate_at(self, progress: jax.Array) -> jax.Array:
        """Learning rate when `progress` of the budget is used."""
        remaining = jnp.maximum(1.0 - progress, 0.0)
        return self.learning_rate * (
            remaining if self.decay == "linear" else jnp.ones_like(remaining)
        )
