"""Particles sharded over several devices, of one process or of several.

Particles are cut into equal shards along the one axis of a mesh. A shard's simulations,
clocks and accumulators stay on its device for the whole run. An unroll is `shard_map`
of the unsharded one: no device waits for another within it, and a shard stops when all
its particles have ended. Everything else is plain JAX on sharded arrays. In an update
the devices exchange only sums over the population (above all the gradient, D numbers
whatever N is) and, for each row of the log, the N losses. Estimators that rank
particles or make perturbations orthogonal also exchange what they compare, and one with
a critic the sums that the critic is fitted to.

The random numbers do not depend on the number of devices. Sums over the population do,
in their last bits, because float32 addition is not associative.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pes_rl.envs.rollout.base import Particles, Rollout, Thetas, rows_of
from pes_rl.envs.rollout.device import DeviceRollout
from pes_rl.envs.rollout.episodes import Array, Segment
from pes_rl.envs.rollout.observations import ObservationMoments, ObservationSums

AXIS = "particles"
SIMULATED_DEVICES = "XLA_FLAGS=--xla_force_host_platform_device_count"


@dataclass(frozen=True)
class ShardedRollout:
    """A `DeviceRollout` with one shard of the particles on each device.

    Particles that cannot be cut into equal shards, such as the single one of
    truncated-es, are replicated: every device simulates all of them.

    Attributes:
        rollout: The rollout of one shard.
        mesh: The devices, along one axis.
        moments: Moments that normalise the observations; None leaves them unchanged.
    """

    rollout: DeviceRollout
    mesh: Mesh
    moments: ObservationMoments | None = None

    on_device = True
    can_copy = True

    @property
    def horizon(self) -> int | None:
        return self.rollout.horizon

    @property
    def can_differentiate(self) -> bool:
        return self.rollout.can_differentiate

    def differentiable(self) -> "ShardedRollout":
        return replace(self, rollout=self.rollout.differentiable())

    def normalized(self, moments: ObservationMoments) -> "ShardedRollout":
        self.rollout.normalized(moments)  # raises where there are no observations
        return replace(self, moments=moments)

    def reset(
        self,
        key: jax.Array,
        num_pairs: int,
        *,
        members: int = 2,
        stagger: bool = False,
    ) -> Particles:
        particles = self.rollout.reset(key, num_pairs, members=members, stagger=stagger)
        return shard_particles(particles, self.mesh)

    def observations(self, particles: Particles) -> Array:
        return self.rollout.observations(particles)

    def take(self, particles: Particles, indices: Any) -> Particles:
        return shard_particles(self.rollout.take(particles, indices), self.mesh)

    def unroll(
        self,
        particles: Particles,
        thetas: jax.Array | Thetas,
        length: int,
        *,
        single_episode: bool = False,
    ) -> tuple[Particles, Segment]:
        can_shard = len(particles.loss) % self.mesh.size == 0

        def unroll(
            particles: Particles, rows: jax.Array, moments: ObservationMoments | None
        ) -> tuple[Particles, Segment]:
            rollout = replace(self.rollout, axis=AXIS if can_shard else None)
            if moments is not None:
                rollout = rollout.normalized(moments)
            return rollout.unroll(
                particles, rows, length, single_episode=single_episode
            )

        if can_shard:
            sharded, replicated = PartitionSpec(AXIS), PartitionSpec()
            step = PartitionSpec(None, AXIS)
            sums = ObservationSums(replicated, sharded, sharded)
            if self.moments is None:
                sums = None
            shared_row = len(rows_of(thetas)) < len(particles.loss)
            unroll = jax.shard_map(
                unroll,
                mesh=self.mesh,
                in_specs=(sharded, replicated if shared_row else sharded, replicated),
                out_specs=(sharded, Segment(step, step, step, step, sums)),
                # The carry of a loop is constant at first and then differs by device.
                check_vma=False,
            )
        return unroll(particles, rows_of(thetas), self.moments)


def shard(rollout: Rollout, devices: int, name: str, count: int) -> Rollout:
    """The rollout sharded over the devices; unchanged where there is only one device.

    Args:
        rollout: Rollout of training.
        devices: Devices of each process to use; 0 for all that it has.
        name: Option that gives the number of units to cut: `num_pairs`, because the
            members of a pair stay together, or `num_particles` without pairs.
        count: Value of that option.

    Raises:
        ValueError: If there are fewer devices, equal shards are not possible, or the
            simulations run on the host.
    """
    processes = jax.process_count()
    if not isinstance(rollout, DeviceRollout):
        if devices == processes == 1:
            return rollout
        shown = f"{processes} processes" if devices == 1 else f"devices={devices}"
        raise ValueError(
            f"{shown} are for environments written in JAX (jax:, brax:, ...), "
            "and this one is stepped on the host; use num_threads for more of this "
            "machine's CPUs, workers (Ray) for more machines"
        )
    present = jax.local_device_count()
    if devices > present:
        raise ValueError(
            f"devices={devices}, and this process has {present} "
            f"({jax.default_backend()}); for simulated ones set "
            f"{SIMULATED_DEVICES}={devices}"
        )
    mesh = make_mesh(devices or present)
    if mesh.size == 1:
        return rollout
    if count % mesh.size:
        raise ValueError(
            f"{name}={count} cannot be cut into equal shares for {mesh.size} devices; "
            f"use a multiple, {count + -count % mesh.size} for example"
        )
    return ShardedRollout(rollout, mesh)


def make_mesh(devices: int) -> Mesh:
    """A mesh of one axis over the first `devices` devices of every process."""
    of_process: dict[int, list[Any]] = {}
    for device in jax.devices():
        of_process.setdefault(device.process_index, []).append(device)
    chosen = [one for own in of_process.values() for one in own[:devices]]
    return Mesh(np.array(chosen), (AXIS,))


def mesh_of(rollout: Rollout) -> Mesh | None:
    """The mesh of a sharded rollout; None for any other."""
    return rollout.mesh if isinstance(rollout, ShardedRollout) else None


def shard_particles(tree: Any, mesh: Mesh | None) -> Any:
    """The tree with its particles, and the arrays that belong to them, in shards.

    The sizes of the populations are those of the `Particles` in the tree that can be
    cut into equal shards. Of every array, the first axis of such a size is cut. An
    array without such an axis is replicated. This affects only where numbers are
    stored, not their values. Without a mesh the tree is unchanged.
    """
    if mesh is None:
        return tree
    parts = jax.tree.leaves(tree, is_leaf=_is_particles)
    sizes = {len(part.loss) for part in parts if _is_particles(part)}
    sizes = {size for size in sizes if size % mesh.size == 0}

    def place(leaf: jax.Array) -> jax.Array:
        axis = next((k for k, size in enumerate(leaf.shape) if size in sizes), None)
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)
        return lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """The tree with every array on all devices; unchanged without a mesh."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: lax.with_sharding_constraint(leaf, everywhere), tree
    )


def _is_particles(part: Any) -> bool:
    return isinstance(part, Particles)
