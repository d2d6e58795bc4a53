"""Training and episodes that end with the seconds given to them, for `run.py`."""

import csv
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.assembly.assemble import Assembly
from pes_rl.envs import DeviceRollout

Row = dict[str, Any]


class Clock:
    """Seconds of a part, and of its pieces."""

    def __init__(self, seconds: float) -> None:
        self._start, self.seconds = time.perf_counter(), seconds

    @property
    def spent(self) -> float:
        return time.perf_counter() - self._start

    def share(self, part: float) -> "Clock":
        """A clock of this part of all, or of what is left if that is less."""
        return Clock(min(part * self.seconds, self.seconds - self.spent))

    @property
    def is_over(self) -> bool:
        return self.spent >= self.seconds


class Table:
    """A CSV file that is whole after every row."""

    def __init__(self, path: Path) -> None:
        self._path, self._header = path, True

    def add(self, rows: list[Row]) -> None:
        with self._path.open("w" if self._header else "a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            if self._header:
                writer.writeheader()
            writer.writerows(rows)
        self._header = False


def train(
    assembly: Assembly, seeds: list[int], clock: Clock, every: int, updates: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(updates so far, thetas [S, D], budgets used [S]) of S runs, every few updates.

    Several seeds run at once, in one batch.
    """

    @jax.jit
    def start(seed: jax.Array) -> Any:
        theta_key, key, _ = jax.random.split(jax.random.key(seed), 3)
        return assembly.learner.init(assembly.init_theta(theta_key), key)

    def advance(state: Any) -> Any:
        return assembly.learner.run(state, every)[0]

    states = [start(jnp.asarray(seed)) for seed in seeds]
    several, state = len(seeds) > 1, states[0]
    if several:
        state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    run = jax.jit(jax.vmap(advance) if several else advance, donate_argnums=0)
    progress = assembly.learner.progress
    used = jax.jit(jax.vmap(progress) if several else progress)
    done = 0
    while True:
        shape = len(seeds), -1
        yield (
            done,
            np.array(state.theta).reshape(shape),
            np.array(used(state)).reshape(len(seeds)),
        )
        if done >= updates or (done > 0 and clock.is_over):
            return
        state = jax.block_until_ready(run(state))
        done += every


def play(
    problem: Any, thetas: jax.Array, clock: Clock, *, same: bool = False
) -> tuple[np.ndarray, int]:
    """Loss of an episode under each row of thetas, and the steps that it was cut to.

    Args:
        problem: The unrolled problem.
        thetas: # shape=(M, D)
        clock: Where it ends, the episodes are cut.
        same: Whether all play the same episode, or each its own.
    """
    rollout = DeviceRollout(problem, problem.horizon, problem.diverged_loss)
    count, horizon = len(thetas), problem.horizon

    @jax.jit
    def begin(key: jax.Array) -> Any:
        if same:
            first = rollout.reset(key, 1, members=1)
            return rollout.take(first, jnp.zeros(count, jnp.int32))
        return rollout.reset(key, count, members=1)

    particles = begin(jax.random.key(99))
    piece = math.gcd(horizon, 100)

    def advance(particles: Any, total: jax.Array, over: jax.Array) -> Any:
        particles, segment = rollout.unroll(
            particles, thetas, piece, single_episode=True
        )
        total = total + jnp.where(over, 0.0, segment.loss.sum(0))
        return particles, total, over | segment.ended.any(0)

    run: Callable[..., Any] = jax.jit(advance, donate_argnums=(0, 1, 2))
    total, over, steps = jnp.zeros(count), jnp.zeros(count, bool), 0
    while steps == 0 or (steps < horizon and not clock.is_over):
        particles, total, over = run(particles, total, over)
        over.block_until_ready()
        steps += piece
    log("played", count, "episodes of", steps, "steps", clock)
    return np.asarray(total), steps


def log(*words: Any) -> None:
    """A line with the seconds of a part's clock at its end."""
    clock: Clock = words[-1]
    print(*words[:-1], f"{clock.spent:.1f} s of {clock.seconds:g}", flush=True)
