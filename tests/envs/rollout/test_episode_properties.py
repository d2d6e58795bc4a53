"""Episode bookkeeping, for random ends, horizons, unrolls and phases.

Each particle's episodes are played again one at a time by a loop over single steps,
without a clock: every loss of an unroll must be that of one step of one episode.
"""

from dataclasses import dataclass
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from properties import bounded

from pes_rl.envs import Particles, Segment

pytestmark = pytest.mark.user_compilation

NUM_PAIRS = 3
NUM_UNROLLS = 3
DIVERGED_LOSS = 2.5


@dataclass(frozen=True)
class Case:
    """What is unrolled: parameters are halves, so that sums are exact."""

    seed: int
    length: int
    horizon: int
    diverges_at: int | None
    stagger: bool
    single_episode: bool
    halves: tuple[int, ...]

    @property
    def thetas(self) -> np.ndarray:
        """Antithetic parameters for each unroll. # shape=(U, 2P, 2)."""
        half = np.array(self.halves, np.float32).reshape(NUM_UNROLLS, NUM_PAIRS, 1, 2)
        both = np.concatenate([half, -half], axis=2) / 2
        return both.reshape(NUM_UNROLLS, 2 * NUM_PAIRS, 2)


def case(lengths, horizons, diverges_at):
    numbers = NUM_UNROLLS * NUM_PAIRS * 2
    return st.builds(
        Case,
        seed=st.integers(0, 2**31 - 1),
        length=lengths,
        horizon=horizons,
        diverges_at=diverges_at,
        stagger=st.booleans(),
        single_episode=st.booleans(),
        halves=st.lists(st.integers(-8, 8), min_size=numbers, max_size=numbers).map(
            tuple
        ),
    )


def play(driver: str, case: Case) -> list[tuple[Particles, Segment]]:
    """Particles and segment of each unroll."""
    rollout = counting.ROLLOUTS[driver](
        case.horizon, diverged_loss=DIVERGED_LOSS, diverges_at=case.diverges_at
    )
    particles = rollout.reset(
        jax.random.key(case.seed), NUM_PAIRS, stagger=case.stagger
    )
    history = []
    for thetas in case.thetas:
        particles, segment = rollout.unroll(
            particles,
            jnp.asarray(thetas),
            case.length,
            single_episode=case.single_episode,
        )
        history.append((particles, segment))
    return history


def replay(case: Case, particle: int) -> dict[str, Any]:
    """One particle's rows, as `Segment` has them, and where it is at the end."""
    pair_keys = jax.random.split(jax.random.key(case.seed), NUM_PAIRS)
    environment = counting.HostCounting(case.horizon, case.diverges_at)
    system = counting.CountingSystem(environment, pair_keys)
    pair = particle // 2
    limit = case.horizon
    if case.stagger:
        limit = max((pair + 1) * case.horizon // NUM_PAIRS, 1)
    losses, ended, diverged, simulated = [], [], [], []
    episode = elapsed = 0
    total = 0.0
    state = system.begin(pair, episode)
    for thetas in case.thetas:
        waits = False
        for _ in range(case.length):
            simulated.append(not waits)
            if waits:
                losses.append(0.0)
                ended.append(False)
                diverged.append(False)
                continue
            state, loss, terminated = system.step(state, thetas[particle])
            diverged.append(not np.isfinite(loss))
            losses.append(DIVERGED_LOSS if diverged[-1] else loss)
            elapsed, total = elapsed + 1, total + losses[-1]
            ended.append(terminated or diverged[-1] or elapsed == limit)
            if ended[-1]:
                episode, elapsed, total, limit = episode + 1, 0, 0.0, case.horizon
                state = system.begin(pair, episode)
                waits = case.single_episode
    rows = {"loss": losses, "ended": ended, "diverged": diverged}
    return {
        "rows": rows | {"simulated": simulated},
        "clock": {"episode": episode, "elapsed": elapsed, "limit": limit},
        "loss": total,
    }


def check_against_replay(case: Case, history: list[tuple[Particles, Segment]]) -> None:
    """Each loss belongs to exactly one step of one episode."""
    segments = [segment for _, segment in history]
    whole = jax.tree.map(lambda *rows: np.concatenate(rows), *segments)
    last = history[-1][0]
    for particle in range(2 * NUM_PAIRS):
        expected = replay(case, particle)
        for name, column in expected["rows"].items():
            np.testing.assert_array_equal(getattr(whole, name)[:, particle], column)
        for name, value in expected["clock"].items():
            assert getattr(last.clock, name)[particle] == value, name
        assert last.loss[particle] == expected["loss"]


@bounded(20)
@given(case(st.integers(1, 12), st.integers(1, 15), st.none() | st.integers(1, 6)))
def test_host_unrolls_are_episodes_played_one_after_another(case):
    check_against_replay(case, play("host", case))


FEW_SHAPES = case(st.sampled_from([3, 9]), st.just(7), st.just(4))
"""Of few lengths and horizons: each is compiled."""


@bounded(16)
@given(FEW_SHAPES)
def test_the_device_and_the_host_give_the_same(case):
    on_device, on_host = play("device", case), play("host", case)
    for device, host in zip(on_device, on_host, strict=True):
        jax.tree.map(np.testing.assert_array_equal, device[1], host[1])
        jax.tree.map(np.testing.assert_array_equal, device[0].clock, host[0].clock)
        np.testing.assert_array_equal(device[0].loss, host[0].loss)
        observations = [counting.observation_of(p) for p in (device[0], host[0])]
        np.testing.assert_array_equal(observations[0], observations[1])
    check_against_replay(case, on_device)


@pytest.mark.slow
@bounded(60)
@given(case(st.integers(1, 12), st.integers(1, 15), st.none() | st.integers(1, 6)))
def test_the_device_and_the_host_give_the_same_for_every_shape(case):
    check_against_replay(case, play("device", case))
    check_against_replay(case, play("host", case))
