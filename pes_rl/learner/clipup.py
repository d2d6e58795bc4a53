"""ClipUp: momentum on the normalised gradient, with a limit on the speed of theta.

    v <- momentum v + rate g / |g|
    v <- v min(1, max_speed / |v|)
    theta <- theta - v

(Toklu, Liskowski, Srivastava 2020, arXiv 2008.02387, Algorithm 2; there theta ascends.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ClipUpState(NamedTuple):
    """State of ClipUp between two updates.

    Attributes:
        velocity: v divided by the learning rate. # shape=(D,)
    """

    velocity: jax.Array


def scale_by_clipup(
    max_speed: float = 2.0, momentum: float = 0.9
) -> optax.GradientTransformation:
    """ClipUp as an optax transformation, without its learning rate.

    The step depends on the direction of the gradient alone, so multiplying rewards by a
    positive number changes nothing. No step is longer than rate * max_speed, measured
    as the Euclidean length over all D parameters.

    Both velocity and limit are in units of the learning rate, by which the caller
    multiplies. With a constant rate this is the paper's algorithm; where the rate
    changes, limit and velocity change in proportion at once, and their ratio stays.

    Effect on the bias: a normalised estimate is not an unbiased estimate of a
    normalised gradient. Each update has the same weight, whatever its length.

    Differences from the paper: a gradient of length 0 counts as the direction 0, which
    lets the velocity decay.

    Args:
        max_speed: Largest length of a step, divided by the learning rate. The paper
            takes 2, a learning rate of half the speed.
        momentum: Share of the velocity that an update keeps.

    >>> transform = scale_by_clipup()
    >>> state = transform.init(jnp.zeros(2))
    >>> transform.update(jnp.array([0.0, 50.0]), state)[0].tolist()
    [0.0, 1.0]
    """

    def init(params: Any) -> ClipUpState:
        return ClipUpState(jnp.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ClipUpState]:
        del params
        velocity = momentum * state.velocity + _unit(updates)
        # Multiplied by exactly 1 where the limit is not reached.
        speed = jnp.linalg.norm(velocity)
        velocity = velocity * (max_speed / jnp.maximum(speed, max_speed))
        return velocity, ClipUpState(velocity)

    return optax.GradientTransformation(init, update)


def _unit(vector: jax.Array) -> jax.Array:
    """The vector divided by its length; 0 stays 0.

    Divided by its largest entry first, as squares of large or small ones overflow.
    """
    largest = jnp.abs(vector).max()
    scaled = vector / jnp.where(largest > 0, largest, 1.0)
    return scaled / jnp.maximum(jnp.linalg.norm(scaled), 1.0)
