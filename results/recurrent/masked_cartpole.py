"""Cart-pole whose velocities are hidden, in JAX."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

GRAVITY, CART, POLE, HALF_LENGTH = 9.8, 1.0, 0.1, 0.5  # m/s^2, kg, kg, m
FORCE, STEP_SECONDS = 10.0, 0.02  # N, s
RAIL, LARGEST_ANGLE = 2.4, 12 * 2 * jnp.pi / 360  # m, rad


@dataclass(frozen=True)
class MaskedCartPole:
    """Gymnasium's CartPole-v1 with a force within -10 and 10 N, and half of its state.

    Observation: position of the cart (m) and angle of the pole (rad), without their
    velocities; with `velocities`, those too. Action: the force in units of 10 N. A
    step gives a reward of 1; the episode ends where the pole has fallen or the cart is
    off its rail, and after 500 steps.

    Without velocities the action of a policy without memory is a force that depends on
    the position alone. Such a force does not damp: with u = k_x x + k_a a the
    linearised dynamics are even in time, so their eigenvalues come in pairs of
    opposite sign, and no k makes all real parts negative.
    """

    velocities: bool = False
    horizon: int = 500

    on_device = True
    action_low = (-1.0,)
    action_high = (1.0,)

    @property
    def observation_size(self) -> int:
        return 4 if self.velocities else 2

    def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return state, self._observe(state)

    def step(self, state: jax.Array, action: jax.Array) -> tuple[Any, ...]:
        _, angle, speed, turning = state
        force, total = FORCE * action[0], CART + POLE
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        push = (force + POLE * HALF_LENGTH * turning**2 * sin) / total
        lever = HALF_LENGTH * (4 / 3 - POLE * cos**2 / total)
        turn = (GRAVITY * sin - cos * push) / lever
        acceleration = push - POLE * HALF_LENGTH * turn * cos / total
        rates = jnp.stack([speed, turning, acceleration, turn])
        state = state + STEP_SECONDS * rates
        fallen = (jnp.abs(state[0]) > RAIL) | (jnp.abs(state[1]) > LARGEST_ANGLE)
        return state, self._observe(state), jnp.float32(1.0), fallen

    def _observe(self, state: jax.Array) -> jax.Array:
        return state if self.velocities else state[:2]
