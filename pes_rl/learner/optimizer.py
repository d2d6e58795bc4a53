"""The optimiser: how theta moves along a gradient estimate."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from pes_rl.learner.clipup import scale_by_clipup
from pes_rl.learner.schedules import Schedule, value_at


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimiser, with the schedule of its learning rate.

        theta <- theta - rate (transform(gradient) + weight_decay theta)

    Attributes:
        optimizer: `sgd` or `adam`, from optax, or `clipup`. The expected step of the
            latter two is not along the gradient: Adam divides by the size of the same
            estimates, ClipUp by the length of each (see `scale_by_clipup`).
        learning_rate: At the start; or a function of the progress, which then is the
            whole schedule.
        decay: `constant`, or `linear` to 0 as the budget is used.
        normalize_returns: Apply `normalize_by_return_std` to the gradient first.
        weight_decay: Weight of theta in the step, after the optimiser as in AdamW. The
            optimum moves towards 0: with SGD, to that of the loss plus
            weight_decay / 2 |theta|^2.
        adam_b1: Decay rate of Adam's running mean of the gradient.
        clipup_max_speed: Largest length of ClipUp's step at the start, without the
            weight decay; None takes twice the learning rate. It decays with the rate.
        clipup_momentum: Share of the velocity that an update of ClipUp keeps.
    """

    optimizer: Literal["sgd", "adam", "clipup"]
    learning_rate: float | Schedule
    decay: Literal["constant", "linear"] = "constant"
    normalize_returns: bool = False
    weight_decay: float = 0.0
    adam_b1: float = 0.9
    clipup_max_speed: float | None = None
    clipup_momentum: float = 0.9

    def transform(self) -> optax.GradientTransformation:
        """The optax transformation, without its learning rate.

        optax's schedules count updates; here they follow environment steps, so the
        learner multiplies by the learning rate.
        """
        if self.optimizer == "adam":
            return optax.scale_by_adam(b1=self.adam_b1)
        if self.optimizer == "clipup":
            return scale_by_clipup(self._speed_by_rate(), self.clipup_momentum)
        return optax.identity()

    def _speed_by_rate(self) -> float:
        """ClipUp's largest speed at the start, divided by the learning rate there."""
        if self.clipup_max_speed is None:
            return 2.0
        rate = self.learning_rate
        start = float(rate(jnp.float32(0))) if callable(rate) else rate
        return self.clipup_max_speed / start

    def learning_rate_at(self, progress: jax.Array) -> jax.Array:
        """Learning rate when the share `progress` of the budget is used."""
        if callable(self.learning_rate):
            return value_at(self.learning_rate, progress)
        remaining = jnp.maximum(1.0 - progress, 0.0)
        return self.learning_rate * (
            remaining if self.decay == "linear" else jnp.ones_like(remaining)
        )
