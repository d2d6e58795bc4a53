"""EnvPool: seeds that it takes, errors that it raises, simulations that diverge."""

import sys
from types import SimpleNamespace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.envs import HostRollout
from pes_rl.envs.gymnasium import envpool as module
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.gymnasium.envpool import EnvPoolThreads
from pes_rl.envs.gymnasium.results import BrokenEnvironment

NUM_PAIRS = 4
N = 2 * NUM_PAIRS


class Failing:
    """A pool whose step fails, and whose reset too."""

    def __init__(self, fails_at_reset: bool) -> None:
        self.fails_at_reset = fails_at_reset

    def reset(self, ids: np.ndarray) -> Any:
        if self.fails_at_reset:
            raise RuntimeError("no arm")
        return np.zeros((len(ids), 2)), {"env_id": ids}

    def step(self, actions: np.ndarray, ids: np.ndarray) -> Any:
        raise RuntimeError("no arm")


@pytest.mark.parametrize("fails_at_reset", [True, False])
def test_an_error_names_the_task_and_the_call(fails_at_reset, monkeypatch):
    pool = SimpleNamespace(make=lambda *_, **__: Failing(fails_at_reset))
    monkeypatch.setattr(module, "import_envpool", lambda: pool)
    threads, ids = EnvPoolThreads("Arm-v0", {}, 1, 2), np.arange(2)
    call = "reset" if fails_at_reset else "step"
    message = rf"^EnvPool's Arm-v0: a {call} raised RuntimeError: no arm \(line"
    with pytest.raises(BrokenEnvironment, match=message):
        threads.reset(ids, ids)
        threads.step(np.zeros((2, 1)), ids)


@pytest.fixture
def hopper() -> GymnasiumEnvironment:
    pytest.importorskip("envpool")
    environment = GymnasiumEnvironment(
        "Hopper-v5", vectorization="envpool", num_threads=1
    )
    environment.allocate(2)
    return environment


def test_the_largest_seeds_are_taken(hopper):
    """Keys of 32 bits give seeds below 2^31, which are EnvPool's int32."""
    keys = np.array([[0, 2**32 - 1], [0, 2**31 - 1]], np.uint32)
    first = hopper.reset(np.arange(2), keys)
    np.testing.assert_array_equal(*first)
    assert np.isfinite(first).all()


def test_actions_of_nan_diverge_alone(hopper, capfd):
    hopper.reset(np.arange(2), np.zeros((2, 2), np.uint32))
    actions = np.zeros((2, 3))
    actions[1] = np.nan
    _, rewards, _ = hopper.step(actions, None)
    np.testing.assert_array_equal(np.isnan(rewards), [False, True])
    capfd.readouterr()  # Its own MuJoCo prints a warning.


def test_a_package_id_is_refused_with_what_to_do():
    pytest.importorskip("envpool")
    with pytest.raises(ValueError, match="EnvPool has no 'package:Arm-v0'; use vec"):
        GymnasiumEnvironment("package:Arm-v0", vectorization="envpool")


def test_envpool_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ValueError, match=r"pip install 'pes-rl\[envpool\]'"):
        GymnasiumEnvironment("Hopper-v5", vectorization="envpool")


def envpool_rollout(horizon: int) -> HostRollout:
    def act(thetas: Any, observations: Any) -> Any:
        return np.clip(thetas * observations[:, 5:8], -1, 1)

    batch = GymnasiumEnvironment("Hopper-v5", vectorization="envpool", num_threads=2)
    return HostRollout(batch, act, horizon)


def test_envpool_steps_some_and_shares_a_pair_s_first_states():
    """Hopper falls at different steps, and pairs meet again at their next starts."""
    pytest.importorskip("envpool")
    rollout = envpool_rollout(1000)
    thetas = 3 * jax.random.normal(jax.random.key(0), (N, 3))
    histories = []
    for _ in range(2):  # the same key, the same episodes
        particles = rollout.reset(jax.random.key(1), NUM_PAIRS)
        starts = [particles.state.observation]
        for _ in range(3):
            particles, segment = rollout.unroll(
                particles, thetas, 150, single_episode=True
            )
            starts.append(particles.state.observation)
            assert segment.ended.any(0).all()
            assert len(set(np.asarray(segment.simulated.sum(0)).tolist())) > 2
        histories.append(starts)
    jax.tree.map(np.testing.assert_array_equal, *histories)
    for start in histories[0]:
        np.testing.assert_array_equal(start[0::2], start[1::2])
        assert len(np.unique(start[:, 0])) == NUM_PAIRS


def test_envpool_s_episodes_are_gymnasium_s_from_the_same_state():
    """Rewards, ends and the clock of a 5-step horizon; not the draws of the reset."""
    pytest.importorskip("envpool")
    rollout = envpool_rollout(5)
    particles = rollout.reset(jax.random.key(1), 1)
    first = particles.state.observation[0]
    thetas = jnp.ones((2, 3))
    after, segment = rollout.unroll(particles, thetas, 7)
    assert np.flatnonzero(segment.ended[:, 0]).tolist() == [4]
    env: Any = gymnasium.make("Hopper-v5").unwrapped
    env.reset(seed=0)
    env.set_state(np.r_[0.0, first[:5]], first[5:])
    observation = first
    for k in range(5):
        observation, reward, *_ = env.step(
            rollout.act(thetas[:1], observation[None])[0]
        )
        assert segment.loss[k, 0] == pytest.approx(-reward, abs=2e-3)
    assert after.clock.elapsed.tolist() == [2, 2]
