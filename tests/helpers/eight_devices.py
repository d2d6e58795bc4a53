"""Runs an estimator on one device and on eight simulated ones, for test_sharding.py.

    python eight_devices.py OUT NAME...

It is a process of its own, with an XLA_FLAGS that simulates the devices: JAX fixes
their number when it starts. For each name of the table it writes to OUT, an npz file,
theta and the reports after a few updates on one device (`NAME one ...`) and on eight
(`NAME eight ...`), the collectives of the compiled update (`NAME collectives`), and how
the estimator's state then lies (`NAME layout`). Besides, the losses of an unroll of one
row of parameters for all (`one row, one` and `one row, eight`).
"""

import re
import sys
from dataclasses import replace
from typing import Any

import estimator_table
import jax
import numpy as np
import remembering

from pes_rl.envs import DeviceRollout, ObservationMoments
from pes_rl.envs.rollout.sharding import ShardedRollout, shard
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig

DEVICES, NUM_PAIRS, UPDATES = 8, 16, 6
COLLECTIVE = re.compile(
    r"= \(?(\w+)\[([\d,]*)\].* (all-gather|all-reduce|all-to-all|collective-permute"
    r"|reduce-scatter|collective-broadcast)(?:-start)?\("
)


def make_learner(name: str, devices: int) -> Learner:
    """Of the named estimator; `NAME, normalized` is NAME on normalised observations.

    `NAME, remembering` is NAME on a policy with a carry.
    """
    name, *remembers = name.split(", remembering")
    name, *how = name.split(", normalized")
    estimator: Any = estimator_table.ESTIMATORS[name]
    option, count = "num_particles", 2 * NUM_PAIRS
    if hasattr(estimator, "num_pairs"):
        option, count = "num_pairs", NUM_PAIRS
    estimator = replace(estimator, **{option: count})
    plain = estimator_table.make_rollout("device", name)
    if remembers:
        plain = remembering.device_rollout(estimator_table.HORIZON, 2.5)
    # Without methods that are jitted by themselves: the update is compiled as a whole.
    plain = DeviceRollout(plain.problem, plain.horizon, plain.diverged_loss)
    rollout = shard(plain, devices, option, count)
    assert isinstance(rollout, ShardedRollout) == (devices > 1)
    moments = ObservationMoments.empty(2) if how else None
    step = OptimizerConfig("adam", 0.01)
    return Learner(rollout, estimator, step, 10_000, observations=moments)


def collectives(learner: Learner, state: Any) -> list[str]:
    """Each of a compiled update's, as `all-reduce f32 2,3`."""
    lowered = learner._scan_jitted.lower(state, num_updates=UPDATES)
    found = COLLECTIVE.findall(lowered.compile().as_text() or "")
    return [f"{kind} {dtype} {shape}" for dtype, shape, kind in found]


def layout(state: Any) -> list[tuple[int, int]]:
    """Length of each array's first axis, whole and on one device."""
    return [
        (len(leaf), len(leaf.addressable_shards[0].data))
        for leaf in jax.tree.leaves(state)
        if leaf.ndim
    ]


def losses_of_one_row(devices: int) -> jax.Array:
    """Of all particles under one row of parameters."""
    learner = make_learner("es", devices)
    rollout, theta = learner._rollout, estimator_table.theta_of("es")

    @jax.jit
    def losses(key: jax.Array) -> jax.Array:
        start = rollout.reset(key, NUM_PAIRS)
        return rollout.unroll(start, theta[None], 10)[1].loss

    return losses(jax.random.key(7))


def main(out: str, names: list[str]) -> None:
    results: dict[str, Any] = {}
    for name in names:
        for count, devices in (("one", 1), ("eight", DEVICES)):
            learner = make_learner(name, devices)
            theta = estimator_table.theta_of(name.split(", normalized")[0])
            state = jax.jit(learner.init)(theta, jax.random.key(7))
            if devices > 1:
                results[f"{name} collectives"] = collectives(learner, state)
            state, report = learner.run(state, UPDATES)
            if devices > 1:
                results[f"{name} layout"] = layout(state.estimator)
            results[f"{name} {count} theta"] = np.asarray(state.theta)
            for field in ("particle_loss", "env_steps", "episodes", "signal_to_noise"):
                values = np.asarray(getattr(report, field))
                results[f"{name} {count} {field}"] = values
    for count, devices in (("one", 1), ("eight", DEVICES)):
        results[f"one row, {count}"] = np.asarray(losses_of_one_row(devices))
    np.savez(out, **results)


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    main(sys.argv[1], sys.argv[2:])
