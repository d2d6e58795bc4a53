"""Functions and options of the estimators that differentiate through the simulation.

They run the mean theta itself: nothing is perturbed, so they have no sigma and no
pairs, and their N particles differ only in the randomness of their episodes. They are
unbiased for the loss itself, not the smoothed one, and only where theta does not decide
when episodes end: a derivative leaves out that another theta would have ended later.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.estimator import check_truncation_length
from pes_rl.envs.rollout.base import Particles, Rollout
from pes_rl.envs.rollout.episodes import Segment


def check_num_particles(num_particles: int) -> None:
    """Raise `ValueError` unless there is at least one particle."""
    if num_particles < 1:
        raise ValueError(
            f"num_particles={num_particles} must be at least 1; use 8, for example"
        )


@dataclass(frozen=True)
class MeanUnrolls:
    """Options of the estimators that unroll the mean theta K steps at a time.

    Where an episode ends inside an unroll, the next begins in it.

    Attributes:
        num_particles: Particles N, all with the mean theta.
        truncation_length: Steps K of a partial unroll, at most the horizon T.
        stagger: Spread the particles over the episode, so that every update sees all
            phases of it; needs a finite horizon.
    """

    num_particles: int
    truncation_length: int
    stagger: bool = False

    def __post_init__(self) -> None:
        check_num_particles(self.num_particles)
        check_truncation_length(self.truncation_length, None)

    def max_steps(self, horizon: int | None) -> int:
        del horizon
        return self.num_particles * self.truncation_length

    def first_particles(
        self, rollout: Rollout, key: jax.Array, agent: str
    ) -> Particles:
        """The particles at the start of their first episodes.

        Raises:
            ValueError: If `agent` cannot run on this rollout.
        """
        check_differentiable(rollout, agent)
        check_truncation_length(self.truncation_length, rollout.horizon)
        return rollout.reset(key, self.num_particles, members=1, stagger=self.stagger)


def check_differentiable(rollout: Rollout, agent: str) -> None:
    """Raise `ValueError` unless the rollout's simulations have derivatives."""
    if not rollout.can_differentiate:
        raise ValueError(
            f"{agent} differentiates through the simulation, and this one has no "
            "derivatives (it is not written in JAX, or says so itself); "
            "use pes, nres, gpes or es"
        )


def check_reverse_mode(
    rollout: Rollout, particles: Particles, theta: jax.Array, agent: str
) -> None:
    """Raise `ValueError` unless JAX has a reverse mode of a step.

    It has none of a `lax.while_loop`, which contact solvers use.
    """
    try:
        jax.eval_shape(lambda: unroll_gradient(rollout, particles, theta, length=1))
    except ValueError as error:
        if "Reverse-mode differentiation" not in str(error):
            raise
        raise ValueError(
            f"{agent} differentiates in reverse, which JAX cannot do through a step of "
            "this simulation; use rtrl, pes, nres, gpes or es"
        ) from error


def unroll_gradient(
    rollout: Rollout,
    particles: Particles,
    theta: jax.Array,
    length: int,
    *,
    single_episode: bool = False,
) -> tuple[jax.Array, Particles, Segment]:
    """Gradient of each particle's loss in an unroll under theta, by reverse mode.

    The states that the unroll begins in are constants, and so is the first state of an
    episode that begins in it. Memory grows with `length`.

    Returns:
        (gradients [N, D], particles after the unroll, segment).
    """
    thetas = jnp.broadcast_to(theta, (particles.loss.shape[0], theta.size))

    def total_loss(thetas: jax.Array) -> tuple[jax.Array, tuple[Particles, Segment]]:
        after, segment = rollout.differentiable().unroll(
            particles, thetas, length, single_episode=single_episode
        )
        return segment.loss.sum(), (after, segment)

    # Particles share nothing, so the sum's derivative by a row is that row's own.
    gradients, (after, segment) = jax.grad(total_loss, has_aux=True)(thetas)
    return drop_diverged(gradients, segment), after, segment


def drop_diverged(gradients: jax.Array, segment: Segment) -> jax.Array:
    """The gradients [N, D], those of particles with a diverged simulation set to 0.

    The derivatives of a diverged step are not finite, and reverse mode carries them to
    all steps before it.
    """
    return jnp.where(segment.diverged.any(0)[:, None], 0.0, gradients)


def split_floats(state: Any) -> tuple[list[jax.Array], Callable[[Any], Any]]:
    """The leaves of a state that have derivatives, and a function that replaces them.

    Counters and keys have no derivatives; the function keeps those of the state.
    """
    leaves, structure = jax.tree.flatten(state)
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def join(floats: Any) -> Any:
        remaining = iter(floats)
        mixed = [
            next(remaining) if own else leaf
            for leaf, own in zip(leaves, is_float, strict=True)
        ]
        return structure.unflatten(mixed)

    return [leaf for leaf, own in zip(leaves, is_float, strict=True) if own], join
