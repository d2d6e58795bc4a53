"""A critic: a prediction of the loss to go, by which an estimator subtracts noise.

    delta_i = L_i + b(s'_i) - b(s_i),    b = 0 where the episode has ended

s_i is the state in which particle i's unroll began, s'_i that in which it ended. Over
an episode whose updates are scaled alike the values of b cancel, whatever b is: each
value that is subtracted is the very one that was added before. See "Control variates"
in docs/estimators.md.

b is linear in features of the state and predicts losses discounted by g a step. After
each unroll of K steps it is fitted by least squares to what has come after each state,
as LSTD(1) does without keeping episodes (Boyan 2002, "Technical Update: Least-Squares
Temporal Difference Learning"; there for each step and without forgetting):

    z_i <- g^K z_i + phi(s_i),                      z_i = 0 where an episode begins
    A <- f A + sum_i z_i (phi(s_i) - g^K phi(s'_i))^T,  phi(s'_i) = 0 after an end
    c <- f c + sum_i z_i sum_k g^k L_ik
    b(s) = w . phi(s),  w = (A + r n I)^-1 c

n <- f n + N counts the unrolls that still weigh. LSTD(0), with z_i = phi(s_i), was
tried: how it does depends on the discount, and on HalfCheetah g = 1 failed.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.base import Particles, Rollout
from pes_rl.envs.rollout.episodes import Segment, split_loss

NUM_WAVES = 128
"""Random features: cosines of projections of the state."""
FORGETTING = 0.99
"""f: what an update keeps of the sums before it, so that b follows theta."""
RIDGE = 0.1
"""r: penalty of least squares, in units of the features' mean squares.

Chosen on seeds 54 to 56 of three MuJoCo tasks, with LSTD(0) and a discount of 0.98:
0.01 learned half as much on HalfCheetah, and the same on the other two.
"""
_RIDGE_OF_CONSTANT = 1e-5
MAX_OBSERVATION = 1000
"""Longest observation: A has the square of that many numbers."""
_LARGEST = 1e15
"""Entries of observations beyond it are cut, so that their squares are finite."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Critic:
    """A critic of N particles, with O entries of an observation and F features.

    Attributes:
        value: b of the state in which each particle's next unroll begins, as it was
            when that state was reached. # shape=(N,)
        weights: w. # shape=(F,)
        matrix: A. # shape=(F, F)
        target: c. # shape=(F,)
        count: n, a scalar.
        mean: Running mean of the states. # shape=(O + 1,)
        squares: Sum of squared distances from it. # shape=(O + 1,)
        trace: z of each particle's running episode. # shape=(N, F)
    """

    value: jax.Array
    weights: jax.Array
    matrix: jax.Array
    target: jax.Array
    count: jax.Array
    mean: jax.Array
    squares: jax.Array
    trace: jax.Array

    def adopt(self, before: "Critic") -> "Critic":
        """What `before` has learned, for these particles."""
        return replace(before, value=self.value, trace=self.trace)


def check_critic_discount(discount: float | None) -> None:
    """Raise `ValueError` unless it is None or 0 < g <= 1."""
    if discount is not None and not 0 < discount <= 1:
        raise ValueError(
            f"critic_discount={discount} must be above 0 and at most 1; use 0.995, for "
            "example"
        )


def make_critic(rollout: Rollout, particles: Particles) -> Critic:
    """A critic that has seen nothing: b = 0.

    Raises:
        ValueError: If the particles have no observations, or too long ones.
    """
    try:
        states = critic_states(rollout, particles)
    except ValueError as error:
        raise ValueError(
            f"critic_discount needs observations, and {error}; drop it"
        ) from None
    number, size = states.shape
    if size - 1 > MAX_OBSERVATION:
        raise ValueError(
            f"critic_discount fits least squares to all {size - 1} entries of the "
            f"observation, at most {MAX_OBSERVATION}; drop it"
        )
    features = 1 + size + NUM_WAVES
    return Critic(
        value=jnp.zeros(number),
        weights=jnp.zeros(features),
        matrix=jnp.zeros((features, features)),
        target=jnp.zeros(features),
        count=jnp.zeros(()),
        mean=jnp.zeros(size),
        squares=jnp.zeros(size),
        trace=jnp.zeros((number, features)),
    )


def critic_states(rollout: Rollout, particles: Particles) -> jax.Array:
    """What a critic sees: observations, and the share of the time limit that is over.

    Returns:
        # shape=(N, O + 1)

    Raises:
        ValueError: If the particles have no observations.
    """
    with np.errstate(over="ignore"):  # in the cast of float64
        observation = jnp.asarray(rollout.observations(particles), jnp.float32)
    observation = jnp.clip(observation, -_LARGEST, _LARGEST)
    clock = particles.clock
    elapsed, limit = (
        jnp.asarray(steps, jnp.float32) for steps in (clock.elapsed, clock.limit)
    )
    return jnp.concatenate([observation, (elapsed / limit)[:, None]], axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CriticLosses:
    """Losses of an unroll, changed by a critic.

    Attributes:
        delta: 0 for a particle that was lost. # shape=(N,)
        std: Standard deviation of delta, over the others.
        explained: Share of the variance of the critic's targets,
            sum_k g^k L_k + g^K b(s'), that b(s) predicts, before the fit.
    """

    delta: jax.Array
    std: jax.Array
    explained: jax.Array


# A GPU's quicker products have three digits, too few for least squares.
@jax.default_matmul_precision("highest")
@partial(jax.jit, static_argnames="discount")
def critic_losses(
    critic: Critic,
    before: jax.Array,
    after: jax.Array,
    segment: Segment,
    discount: float,
) -> tuple[CriticLosses, Critic]:
    """The losses that take the place of the unroll's, and the critic after it.

    Args:
        critic: Before the unroll.
        before: `critic_states` in which the unroll began. # shape=(N, O + 1)
        after: `critic_states` in which it ended. # shape=(N, O + 1)
        segment: An unroll of single episodes.
        discount: g.

    Returns:
        (losses, critic after the unroll).
    """
    arrived = jnp.asarray(segment.simulated[0])
    goes_on = arrived & ~jnp.asarray(segment.ended).any(0)
    value = _features(critic, after) @ critic.weights
    loss, _ = split_loss(segment)
    delta = loss + jnp.where(goes_on, value, 0.0) - critic.value
    delta = jnp.where(arrived, delta, 0.0)
    length = segment.loss.shape[0]
    powers = jnp.asarray(discount ** np.arange(length), jnp.float32)
    discounted = powers @ segment.loss
    carry = np.float32(discount**length)
    target = discounted + carry * jnp.where(goes_on, value, 0.0)
    found = _features(critic, before) @ critic.weights
    losses = CriticLosses(
        delta,
        jnp.where(arrived.any(), jnp.std(delta, where=arrived), 0.0),
        _explained(target, found, arrived),
    )
    critic = _fit(critic, before, after, discounted, carry, arrived, goes_on)
    return losses, replace(critic, value=value)


def _fit(
    critic: Critic,
    before: jax.Array,
    after: jax.Array,
    loss: jax.Array,
    carry: Any,
    arrived: jax.Array,
    goes_on: jax.Array,
) -> Critic:
    """The critic with this unroll in its sums.

    Args:
        critic, before, after: As in `critic_losses`.
        loss: Discounted losses of the unroll. # shape=(N,)
        carry: g^K.
        arrived: Particles that were not lost. # shape=(N,)
        goes_on: Those whose episode has not ended. # shape=(N,)
    """
    critic = _with_moments(critic, before, arrived)
    loss = jnp.where(arrived, loss, 0.0)
    start = jnp.where(arrived[:, None], _features(critic, before), 0.0)
    end = carry * jnp.where(goes_on[:, None], _features(critic, after), 0.0)
    trace = carry * critic.trace + start
    matrix = FORGETTING * critic.matrix + trace.T @ (start - end)
    target = FORGETTING * critic.target + trace.T @ loss
    ridge = jnp.full(len(target), RIDGE).at[0].set(_RIDGE_OF_CONSTANT)
    weights = jnp.linalg.solve(matrix + jnp.diag(ridge * critic.count), target)
    # Where no particle has arrived yet, there is nothing to solve.
    weights = jnp.where(jnp.isfinite(weights).all(), weights, critic.weights)
    return replace(
        critic,
        matrix=matrix,
        target=target,
        weights=weights,
        trace=jnp.where(goes_on[:, None], trace, 0.0),
    )


def _with_moments(critic: Critic, states: jax.Array, arrived: jax.Array) -> Critic:
    """The critic with these states in its moments (Chan et al. 1983, with weights)."""
    old, new = FORGETTING * critic.count, arrived.sum().astype(jnp.float32)
    count = old + new
    weights = arrived.astype(jnp.float32) / jnp.maximum(new, 1)
    mean = weights @ states
    squares = new * (weights @ (states - mean[None]) ** 2)
    distance = mean - critic.mean
    share = jnp.where(count > 0, new / jnp.maximum(count, 1e-30), 0.0)
    return replace(
        critic,
        count=count,
        mean=critic.mean + share * distance,
        squares=FORGETTING * critic.squares + squares + old * share * distance**2,
    )


def _features(critic: Critic, states: jax.Array) -> jax.Array:
    """1, the normalised entries of each state, and cosines of them. # shape=(N, F)."""
    variance = critic.squares / jnp.maximum(critic.count, 1)
    std = jnp.sqrt(variance) + 1e-6 * (1 + jnp.abs(critic.mean))
    normal = jnp.clip((states - critic.mean[None]) / std[None], -5, 5)
    size = states.shape[1]
    generator = np.random.default_rng(0)
    frequencies = generator.normal(size=(size, NUM_WAVES)) / np.sqrt(size)
    phases = generator.uniform(0, 2 * np.pi, (1, NUM_WAVES))
    waves = jnp.cos(normal @ frequencies.astype(np.float32) + phases.astype(np.float32))
    constant = jnp.ones((len(states), 1))
    return jnp.concatenate([constant, normal, waves], axis=1)


def _explained(target: jax.Array, found: jax.Array, arrived: jax.Array) -> jax.Array:
    """1 - Var(target - found) / Var(target); 0 where targets do not vary."""
    total = jnp.var(target, where=arrived)
    left = jnp.var(target - found, where=arrived)
    return jnp.where(total > 0, 1 - left / jnp.where(total > 0, total, 1.0), 0.0)
