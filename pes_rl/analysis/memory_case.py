"""Memory and time of updates of one large policy, measured in a separate process.

`memory` starts it: python -m pes_rl.analysis.memory_case ROUNDS < cases in JSON
"""

import ctypes
import gc
import json
import re
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents import AGENTS, Policy
from pes_rl.agents.core.chunks import pairs_at_once
from pes_rl.analysis.cost import planned_bytes
from pes_rl.analysis.output import Row
from pes_rl.assembly.factories import make_environment, make_policy, make_rollout
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs import DeviceRollout, Rollout

NUMBER = "number"

PEAK_RESET = Path("/proc/self/clear_refs")
"""File of Linux that forgets the peak of this process's memory."""


@dataclass(frozen=True)
class Number:
    """A problem with one number as its state, moved by D parameters."""

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.zeros(())

    def step(
        self, theta: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        state = jnp.tanh(theta * state + 1).mean()
        return state, state**2, jnp.array(False)


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        env: `NUMBER`, or an environment for a network.
        agent: An estimator that works in chunks.
        parameters: Parameters D; of a network no more than these.
        pairs_per_chunk: As the estimator's.
        num_pairs: Antithetic pairs P.
        unroll: Steps K of an unroll.
        horizon: Steps T of an episode.
    """

    env: str
    agent: str
    parameters: int
    pairs_per_chunk: int | None
    num_pairs: int
    unroll: int
    horizon: int


@dataclass(frozen=True)
class UpdateMeasurement:
    """Measurement of some updates without compilation; seconds are per update."""

    parameters: int
    kept_bytes: int
    seconds: float
    cpu_seconds: float


class Updates:
    """Estimates of a case's gradient, compiled as training compiles them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        options = {**asdict(case), "truncation_length": case.unroll, "sigma": 0.1}
        kind: Any = AGENTS[case.agent]
        names = [field.name for field in fields(kind)]
        self.estimator = kind(**{n: v for n, v in options.items() if n in names})
        self.rollout, self.init_theta = make_system(
            case.env, case.parameters, case.horizon
        )
        self.planned_bytes: int | str = ""  # on the host nobody plans
        self._update = self.estimate
        if self.rollout.on_device:
            shapes = jax.eval_shape(self.begin)
            lowered = jax.jit(self.estimate).lower(*shapes, jax.random.key(0))
            self._update: Any = lowered.compile()
            self.planned_bytes = planned_bytes(self._update)

    def begin(self) -> tuple[jax.Array, Any]:
        """(theta, the estimator's first state)."""
        key = jax.random.key(0)
        theta = self.init_theta(key)
        return theta, self.estimator.init(self.rollout, theta, key)

    def estimate(self, theta: jax.Array, state: Any, key: jax.Array) -> Any:
        """All values that training uses, so that XLA removes no part."""
        return self.estimator.estimate(self.rollout, theta, state, key)

    def run(self, count: int) -> UpdateMeasurement:
        """Take this many updates from the first state, and measure them."""
        theta, state = jax.block_until_ready(self.begin())
        begun = time.perf_counter(), time.process_time()
        for number in range(count):
            key = jax.random.key(number)
            _, state, _ = jax.block_until_ready(self._update(theta, state, key))
        ended = time.perf_counter(), time.process_time()
        seconds = ((b - a) / count for a, b in zip(begun, ended, strict=True))
        kept = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        return UpdateMeasurement(theta.size, kept, *seconds)


def make_system(
    env: str, parameters: int, horizon: int
) -> tuple[Rollout, Callable[[jax.Array], jax.Array]]:
    """A rollout, and the function that makes its first theta from a key.

    Raises:
        ValueError: If there is no such environment, or no so small network for it.
    """
    if env == NUMBER:
        rollout = DeviceRollout(Number(), horizon)
        return rollout, lambda key: jnp.full(parameters, 0.5)
    config = make_config(env, "pes", horizon=horizon)
    environment = make_environment(config, env)
    policy = _largest_network(config, environment, parameters)
    return make_rollout(config, environment, policy), policy.init


def _largest_network(config: TrainConfig, environment: Any, parameters: int) -> Policy:
    """Width of the largest network with two equal hidden layers within D parameters."""

    def network(units: int) -> Policy:
        sizes = {"policy": "mlp", "hidden_sizes": (units, units)}
        return make_policy(replace(config, **sizes), environment)

    def num_parameters(units: int) -> int:
        return network(units).num_parameters

    fits = bisect_right(range(1, parameters + 1), parameters, key=num_parameters)
    if not fits:
        raise ValueError(
            f"parameters={parameters} are too few for a network in {config.env}; "
            f"use {num_parameters(1)} or more"
        )
    return network(fits)


def work(cases: Sequence[Case], rounds: int) -> list[Row]:
    """Memory and time of an update of each case."""
    every = [Updates(case) for case in cases]
    _map_arrays_from(2**17)
    measured = [_measure(updates) for updates in every]
    _map_arrays_from(2**25)  # where the C library itself ends after a few large ones
    times = _time_interleaved(every, rounds)
    return [{**m, **t} for m, t in zip(measured, times, strict=True)]


def _map_arrays_from(size: int) -> None:
    """Let the C library map arrays of at least this size separately.

    These are the system's again once an array is freed. Others lie among what is freed
    and kept for later, which is half as much again where arrays are of 10 MB.
    """
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, size)
    libc.mallopt(trim_threshold, 2 * size)  # as the C library itself has the two


def _measure(updates: Updates) -> Row:
    """Peak and plan of two updates, in bytes."""
    updates.run(1)  # compiles what is not yet
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free counts as free
    before = _status("VmRSS")
    PEAK_RESET.write_text("5")  # the peak begins here
    measured_update = updates.run(2)
    peak = _status("VmHWM") - before
    case, size = updates.case, measured_update.parameters
    return {
        "env": case.env,
        "agent": case.agent,
        "parameters": size,
        "particles": 2 * case.num_pairs,
        "pairs_at_once": pairs_at_once(
            updates.rollout, case.pairs_per_chunk, case.num_pairs, size
        ),
        "population_bytes": 8 * case.num_pairs * size,
        "peak_bytes": peak,
        "planned_bytes": updates.planned_bytes,
        "kept_bytes": measured_update.kept_bytes,
    }


def _status(name: str) -> int:
    """A field of this process's memory status in /proc, in bytes."""
    (kilobytes,) = re.findall(
        rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text()
    )
    return 1024 * int(kilobytes)


def _time_interleaved(every: Sequence[Updates], rounds: int) -> list[Row]:
    """Seconds of an update of each case: mean over an episode, lowest of the rounds.

    Each in turn, round after round, so that whatever else the machine does hits each
    alike. Of all threads together: `cpu_seconds`.
    """
    case = every[0].case
    count = -(-case.horizon // case.unroll)
    measured_update = [[updates.run(count) for updates in every] for _ in range(rounds)]
    return [
        {
            name: min(getattr(each, name) for each in own)
            for name in ("seconds", "cpu_seconds")
        }
        for own in zip(*measured_update, strict=True)
    ]


if __name__ == "__main__":
    given = [Case(**each) for each in json.load(sys.stdin)]
    print(json.dumps(work(given, int(sys.argv[1]))))
