"""The object of a Ray worker: a host rollout of its share of the particles."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.base import Particles
from pes_rl.envs.rollout.episodes import Clock, Segment
from pes_rl.envs.rollout.host import HostRollout
from pes_rl.envs.rollout.observations import ObservationMoments


@dataclass(frozen=True)
class WorkerRollout:
    """A host rollout of the particles that the worker is given.

    Attributes:
        rollout: Without a normaliser.
    """

    rollout: HostRollout

    def begin(self, clock: Clock) -> Particles:
        """Start the episodes of the clock."""
        return self.rollout.start_episodes(clock)

    def unroll(
        self,
        particles: Particles,
        thetas: Any,
        rows: slice | None,
        length: int,
        single_episode: bool,
        moments: ObservationMoments | None,
        sums_reference: np.ndarray | None,
    ) -> tuple[Particles, Segment]:
        """Same as `HostRollout.unroll`, with a NumPy segment.

        Args:
            particles, length, single_episode: Same as there.
            thetas: The packed recipe of a `Thetas`, or parameters of the particles.
            rows: Rows to draw from the recipe; None where thetas are parameters.
            moments: Normaliser of the observations.
            sums_reference: Reference of the sums over observations.
        """
        if rows is not None:
            thetas = np.asarray(_unpack(thetas)(rows=rows))
        rollout = replace(self.rollout, normalizer=moments, reference=sums_reference)
        after, segment = rollout.unroll(
            particles, thetas, length, single_episode=single_episode
        )
        return after, jax.tree.map(np.asarray, segment)

    def unroll_from_start(
        self, clock: Clock, *arguments: Any
    ) -> tuple[Particles, Segment]:
        """Unroll from the start of the running episodes of the particles."""
        return self.unroll(self.begin(clock), *arguments)


@dataclass(frozen=True)
class _KeyData:
    """The data of a JAX key, in a form that can be pickled."""

    data: np.ndarray


def pack(recipe: Any) -> Any:
    """The recipe with NumPy arrays: JAX arrays are bound to devices of a process."""

    def plain(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return _KeyData(np.asarray(jax.random.key_data(leaf)))
        return np.asarray(leaf)

    return jax.tree.map(plain, recipe)


def _unpack(recipe: Any) -> Any:
    def unpack(leaf: Any) -> Any:
        if isinstance(leaf, _KeyData):
            return jax.random.wrap_key_data(jnp.asarray(leaf.data))
        return leaf

    return jax.tree.map(unpack, recipe)
