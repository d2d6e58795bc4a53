"""The interface of the rollout engine: all that a gradient estimator needs of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from pes_rl.envs.rollout.episodes import Array, Clock, Segment
from pes_rl.envs.rollout.observations import ObservationMoments


class EngineLost(RuntimeError):
    """The engine cannot simulate any more; the state before the unroll is valid."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Particles:
    """State of N particles between two unrolls: plain data that can be saved.

    Attributes:
        state: The simulations' states, in the driver's own form; leading axis N.
        clock: Number and elapsed steps of each particle's episode.
        loss: Loss so far of each current episode. # shape=(N,), dtype=float32
    """

    state: Any
    clock: Clock
    loss: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Thetas:
    """Parameters of N particles, and a function that draws them again elsewhere.

    Attributes:
        rows: The parameters. # shape=(N, D)
        recipe: `recipe(rows=slice)` draws the rows of that slice again, identical to
            the bit. Where particles form pairs, a slice holds whole pairs. The recipe
            is a pytree of few numbers (theta and a key, for example) where the rows are
            N D numbers, so an engine on several machines sends it in their place.
    """

    rows: jax.Array
    recipe: Callable[..., jax.Array]


def rows_of(thetas: jax.Array | Thetas) -> jax.Array:
    """The parameters as an array. # shape=(N, D)."""
    return thetas.rows if isinstance(thetas, Thetas) else thetas


class Rollout(Protocol):
    """An engine that steps N particles for K steps and returns their losses.

    The key of `reset` decides all randomness: a particle's j-th episode starts from the
    same state and has the same noise whatever the other particles do.
    """

    @property
    def horizon(self) -> int | None:
        """Time limit T of an episode, in steps; None for no limit."""
        ...

    @property
    def on_device(self) -> bool:
        """Whether JAX can trace `unroll`, and so jit and scan it."""
        ...

    @property
    def can_copy(self) -> bool:
        """Whether `take` works, because simulation states can be copied."""
        ...

    @property
    def can_differentiate(self) -> bool:
        """Whether `differentiable` works, because simulations have derivatives."""
        ...

    def differentiable(self) -> "Rollout":
        """This rollout with an `unroll` that JAX can differentiate in either mode.

        Derivatives do not pass from one episode to the next.

        Raises:
            ValueError: If simulations have no derivatives.
        """
        ...

    def reset(
        self,
        key: jax.Array,
        num_pairs: int,
        *,
        members: int = 2,
        stagger: bool = False,
    ) -> Particles:
        """Start `members * num_pairs` particles; same arguments as `start_clock`."""
        ...

    def unroll(
        self,
        particles: Particles,
        thetas: jax.Array | Thetas,
        length: int,
        *,
        single_episode: bool = False,
    ) -> tuple[Particles, Segment]:
        """Advance every particle by `length` steps.

        Args:
            particles: N particles.
            thetas: Parameters of each particle, or one row that all of them share and
                that is stored once. # shape=(N, D) or (1, D)
            length: Steps K.
            single_episode: Stop each particle at the first end of an episode; it then
                waits at the start of its next episode and is not simulated.

        Returns:
            The particles after the unroll and the segment, of K rows. Every particle
            takes the first step, except one whose simulation was lost because a worker
            died: none of its steps is simulated, and it is then at the start of a new
            episode.
        """
        ...

    def normalized(self, moments: ObservationMoments) -> "Rollout":
        """This rollout with observations normalised by these moments.

        Its segments also hold sums over the observations that policies acted on.

        Raises:
            ValueError: If the problem has no observations.
        """
        ...

    def observations(self, particles: Particles) -> Array:
        """Observations before the particles' next step. # shape=(N, O).

        Raises:
            ValueError: If what is unrolled has none.
        """
        ...

    def take(self, particles: Particles, indices: Any) -> Particles:
        """Copies of the particles at the M `indices`, in that order.

        Raises:
            ValueError: If the environment's states cannot be copied.
        """
        ...
