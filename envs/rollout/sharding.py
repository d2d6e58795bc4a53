"""Particles over several devices, of this process or of several processes.

One mesh axis, over which particles are cut into equal shares. A share's simulations,
clocks and accumulators stay on its device for the whole run. An unroll is `shard_map`
of the unsharded one: within it no device waits for another, and a share whose
particles have all ended stops. Everything else is plain JAX on sharded arrays. What
crosses devices in an update is then what is summed over the population, the gradient
foremost, D numbers whatever N is; and the losses, N numbers, once a row of the log.
(The agents that rank particles or make their perturbations orthogonal also exchange
what they compare.)

The numbers drawn do not depend on the number of devices. Sums over the population do,
in their last bits: float32 addition is not associative.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pes_rl.envs.rollout.base import Particles, Rollout, Thetas, rows_of
from pes_rl.envs.rollout.device import DeviceRollout
from pes_rl.envs.rollout.episodes import Segment
from pes_rl.envs.rollout.observations import ObservationMoments, ObservationSums

AXIS = "particles"
SIMULATED_DEVICES = "XLA_FLAGS=--xla_force_host_platform_device_count"


@dataclass(frozen=True)
class ShardedRollout:
    """A `DeviceRollout` whose particles are cut into one share a device.

    Particles that cannot be cut so, such as the single one of truncated-es, are on all
    devices, and simulated on each.

    Attributes:
        rollout: What a share does.
        mesh: The devices, along one axis.
        moments: What observations are normalised by; None leaves them as they are.
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
        self.rollout.normalized(moments)  # which knows whether it can be
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
        shares = len(particles.loss) % self.mesh.size == 0

        def unroll(
            particles: Particles, rows: jax.Array, moments: ObservationMoments | None
        ) -> tuple[Particles, Segment]:
            rollout = replace(self.rollout, axis=AXIS if shares else None)
            if moments is not None:
                rollout = rollout.normalized(moments)
            return rollout.unroll(
                particles, rows, length, single_episode=single_episode
            )

        if shares:
            of_each, of_all = PartitionSpec(AXIS), PartitionSpec()
            step = PartitionSpec(None, AXIS)
            sums = ObservationSums(of_all, of_each, of_each)
            if self.moments is None:
                sums = None
            one_for_all = len(rows_of(thetas)) < len(particles.loss)
            unroll = jax.shard_map(
                unroll,
                mesh=self.mesh,
                in_specs=(of_each, of_all if one_for_all else of_each, of_all),
                out_specs=(of_each, Segment(step, step, step, step, sums)),
                # Loops begin with constants and go on with what differs by device.
                check_vma=False,
            )
        return unroll(particles, rows_of(thetas), self.moments)


def shard(rollout: Rollout, devices: int, name: str, count: int) -> Rollout:
    """The rollout over devices of each process; as it is where there is only one.

    Args:
        rollout: Of training.
        devices: How many of each process, 0 for all that it has.
        name: What is cut: `num_pairs`, as a pair's members stay together, or
            `num_particles` where there are no pairs.
        count: How many there are.

    Raises:
        ValueError: If there are not so many devices, equal shares cannot be cut, or
            simulations are not on devices.
    """
    processes = jax.process_count()
    if not isinstance(rollout, DeviceRollout):
        if devices == processes == 1:
            return rollout
        shown = f"{processes} processes" if devices == 1 else f"devices={devices}"
        raise ValueError(
            f"{shown} are for environments written in JAX (jax:, brax:, unrolled:), "
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
    """The first devices of every process, so many of each, along one axis."""
    of_process: dict[int, list[Any]] = {}
    for device in jax.devices():
        of_process.setdefault(device.process_index, []).append(device)
    chosen = [one for own in of_process.values() for one in own[:devices]]
    return Mesh(np.array(chosen), (AXIS,))


def mesh_of(rollout: Rollout) -> Mesh | None:
    """The devices of a sharded rollout; None of any other."""
    return rollout.mesh if isinstance(rollout, ShardedRollout) else None


def shard_particles(tree: Any, mesh: Mesh | None) -> Any:
    """The tree with its particles, and what belongs to each of them, in shares.

    Which populations are cut is read off the `Particles` in the tree. Of an array that
    is not in one of these, such as an accumulator, the first axis as long as such a
    population is cut. An array that none of its axes betrays is on all devices. Only
    where numbers lie depends on it, not what they are. Without a mesh nothing changes.
    """
    if mesh is None:
        return tree
    found = jax.tree.leaves(tree, is_leaf=_are_particles)
    sizes = {len(part.loss) for part in found if _are_particles(part)}
    cut = {size for size in sizes if size % mesh.size == 0}

    def place(leaf: jax.Array) -> jax.Array:
        axis = next((k for k, size in enumerate(leaf.shape) if size in cut), None)
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)
        return lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """The tree with every array on all devices; without a mesh, as it is."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: lax.with_sharding_constraint(leaf, everywhere), tree
    )


def _are_particles(part: Any) -> bool:
    return isinstance(part, Particles)
