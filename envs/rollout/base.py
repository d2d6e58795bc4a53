"""The rollout engine's face: all that a gradient estimator knows of an environment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from pes_rl.envs.rollout.episodes import Array, Clock, Segment
from pes_rl.envs.rollout.observations import ObservationMoments


class EngineLost(RuntimeError):
    """The engine cannot simulate any more; the state before the unroll is whole."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Particles:
    """N particles between two unrolls: plain data, so they can be saved and restored.

    Attributes:
        state: The simulations' states, as the driver keeps them; leading axis N.
        clock: Where each particle stands in its episodes.
        loss: Loss so far of each running episode. # shape=(N,), dtype=float32
    """

    state: Any
    clock: Clock
    loss: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Thetas:
    """Parameters of N particles, and how to draw the same ones elsewhere.

    Attributes:
        rows: # shape=(N, D)
        recipe: `recipe(rows=slice)` draws these of the rows again, to the bit, and no
            others; a slice holds whole pairs, where there are pairs. A pytree of few
            numbers: theta and a key, say, where the rows are N D numbers. It is what a
            distant engine sends.
    """

    rows: jax.Array
    recipe: Callable[..., jax.Array]


def rows_of(thetas: jax.Array | Thetas) -> jax.Array:
    """The parameters themselves. # shape=(N, D)."""
    return thetas.rows if isinstance(thetas, Thetas) else thetas


class Rollout(Protocol):
    """Particles in, K steps, particles and a segment out.

    Randomness is decided by `reset` alone: a particle's j-th episode starts from the
    same state and sees the same noise whatever the others do.
    """

    @property
    def horizon(self) -> int | None:
        """Steps T of the longest episode; None where episodes have no limit."""
        ...

    @property
    def on_device(self) -> bool:
        """Whether `unroll` can be traced by JAX (and so jitted and scanned)."""
        ...

    @property
    def can_copy(self) -> bool:
        """Whether `take` works: whether simulation states can be copied."""
        ...

    @property
    def can_differentiate(self) -> bool:
        """Whether `differentiable` works: whether simulations have derivatives."""
        ...

    def differentiable(self) -> "Rollout":
        """The same rollout, whose `unroll` JAX can differentiate in either mode.

        A state's derivatives end where an episode does.

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
        """Start `members * num_pairs` particles; see `episodes.start_clock`."""
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
            thetas: Parameters of each particle, or a single row for all of them, which
                is held once. # shape=(N, D) or (1, D)
            length: Steps K.
            single_episode: Stop each particle at its first end; it then waits at the
                start of its next episode and is not simulated on.

        Returns:
            The particles after the unroll and the segment, of K rows. Every particle
            takes the first step, but for one whose simulation was lost to a worker's
            death: no step of it is simulated, and it then is at the start of an
            episode that it has not lived in yet.
        """
        ...

    def normalized(self, moments: ObservationMoments) -> "Rollout":
        """The same rollout, of policies that see observations normalised by these.

        Its segments carry the sums of the observations acted on. See `observations`.

        Raises:
            ValueError: If what is unrolled has no observations.
        """
        ...

    def take(self, particles: Particles, indices: Any) -> Particles:
        """Copies of the particles at `indices`, in that order.

        Leading axis M as `indices`.

        Raises:
            ValueError: If the environment's states cannot be copied.
        """
        ...
