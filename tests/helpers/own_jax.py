"""Own environments in JAX with known returns, importable as `jax:own_jax:NAME`."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass  # without frozen=True it cannot be hashed, which nothing may need
class Walk:
    """A point on a line that the action moves, with noise; the reward is its position.

    Under a constant action a, the position after t steps is x0 + t a + (sum of t draws
    of noise), where x0 is uniform in [-start, start]. The episode terminates where the
    position exceeds `edge`.

    Attributes:
        edge: Largest position.
        start: Largest distance of the first position from 0.
        noise: Standard deviation of a step's noise.
        horizon: Time limit, in steps.
    """

    edge: float = 1e6
    start: float = 0.5
    noise: float = 0.0
    horizon: int | None = 20
    action_low: Any = field(default_factory=lambda: np.array([-1.0]))
    action_high: Any = (1.0,)

    on_device = True
    observation_size = 2
    step_seconds = 0.1

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        key, first = jax.random.split(key)
        position = self.start * jax.random.uniform(first, minval=-1.0, maxval=1.0)
        # Orbax cannot save the last two by itself.
        state = {"position": position, "steps": 0, "key": key, "none": jnp.zeros(0)}
        return state, self._observe(position)

    def step(
        self, state: Any, action: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        key, noise = jax.random.split(state["key"])
        position = state["position"] + action[0]
        position += self.noise * jax.random.normal(noise)
        steps = state["steps"] + 1
        state = {**state, "position": position, "steps": steps, "key": key}
        return state, self._observe(position), position, position > self.edge

    def render(self, state: Any) -> np.ndarray:
        picture = np.zeros((4, 6, 3), np.uint8)
        picture[:, int(np.clip(float(state["position"]), 0, 5))] = 255
        return picture

    def _observe(self, position: jax.Array) -> jax.Array:
        return jnp.stack([position, jnp.float32(1)])


class Blind(Walk):
    """The same, which cannot be drawn and begins where it always does."""

    render: Any = None

    def __init__(self) -> None:
        super().__init__(start=0.0)


def broken() -> Any:
    """Return what is no environment."""
    return object()


def failing() -> Any:
    """Raise an error."""
    raise RuntimeError("no file")
