"""Seeds of episodes: ones that every environment can take."""

from typing import Any

import broken
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from pes_rl.envs import HostRollout
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment, episode_seeds
from pes_rl.envs.rollout.episodes import episode_keys, start_clock


def keys_of(num_pairs: int, num_episodes: int) -> np.ndarray:
    """Keys of the first episodes of all particles. # shape=(episodes, N, 2)"""
    clock = start_clock(jax.random.key(0), num_pairs, 10)
    return np.stack(
        [episode_keys(clock.seed, clock.episode + j) for j in range(num_episodes)]
    )


def test_seeds_are_those_of_pairs_and_below_2_to_the_31():
    seeds = np.stack([episode_seeds(keys) for keys in keys_of(500, 20)])
    assert seeds.dtype == np.int64
    assert seeds.min() >= 0
    assert seeds.max() < 2**31
    assert seeds.max() > 2**30
    np.testing.assert_array_equal(seeds[:, 0::2], seeds[:, 1::2])
    # 10,000 different episodes: 10^8 / 2^32 = 0.02 collisions expected.
    assert len(np.unique(seeds)) >= 10_000 - 1


def test_a_large_key_gives_a_small_seed():
    keys = np.array([[2**32 - 1, 2**32 - 1], [5, 0], [0, 2**31]], np.uint32)
    assert episode_seeds(keys).tolist() == [2**31 - 1, 0, 0]


@pytest.mark.parametrize("way", ["sync", "async", "SyncVectorEnv"])
def test_every_vectorization_hands_out_such_seeds(way):
    if way == "SyncVectorEnv":
        maker = SyncVectorEnv([broken.Old] * 8, autoreset_mode=AutoresetMode.DISABLED)
        environment = GymnasiumEnvironment(maker)
    else:
        environment = GymnasiumEnvironment(broken.Old, vectorization=way, num_threads=2)

    def act(thetas: Any, observations: Any) -> Any:
        return 0 * observations[:, :1]

    rollout = HostRollout(environment, act, 10)
    particles = rollout.reset(jax.random.key(0), 4)
    _, segment = rollout.unroll(particles, jnp.zeros((8, 1)), 30)
    assert np.asarray(segment.ended).sum() == 7 * 8
