"""Any Gymnasium environment on the host driver."""

from typing import Any

import counting
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium_counting import GymnasiumCounting
from seeded_counting import SeededHostCounting

from pes_rl.agents import PES, TruncatedES
from pes_rl.envs import HostRollout, make
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment

HORIZON = 5


def rollout_of(make: Any, horizon: int = HORIZON) -> HostRollout:
    return HostRollout(GymnasiumEnvironment(make), counting.act, horizon)


def test_an_episode_is_that_of_gymnasium_from_the_same_seed():
    """Pendulum, cut by Gymnasium's own time limit at step 200."""
    environment = make("gym:Pendulum-v1")
    assert isinstance(environment, GymnasiumEnvironment)
    assert environment.horizon == 200
    theirs = gymnasium.make("Pendulum-v1")
    environment.allocate(2)
    observations = environment.reset(np.arange(2), np.array([[0, 7], [1, 2]]))
    expected, _ = theirs.reset(seed=7)
    np.testing.assert_array_equal(observations[0], expected)
    actions = np.random.default_rng(0).uniform(-2, 2, (200, 2, 1))
    for action in actions:
        observations, rewards, ended = environment.step(action, None)
        expected, reward, terminated, truncated, _ = theirs.step(
            action[0].astype(np.float32)
        )
        np.testing.assert_array_equal(observations[0], expected)
        assert rewards[0] == reward
        assert ended[0] == (terminated or truncated)
    assert ended.all()


class Structured(GymnasiumCounting):
    """Observes a dictionary, acts in a 2 x 1 box."""

    observation_space = spaces.Dict(
        {"pair": spaces.Box(-np.inf, np.inf, (2,)), "flag": spaces.Discrete(3)}
    )
    action_space = spaces.Box(-4, 4, (2, 1))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        return {"pair": observation.astype(np.float32), "flag": 1}, info

    def step(self, action: Any) -> Any:
        assert action.shape == (2, 1)
        observation, *rest = super().step(action[0])
        return {"pair": observation.astype(np.float32), "flag": 2}, *rest


def test_structured_observations_are_flattened_as_gymnasium_does():
    environment = GymnasiumEnvironment(Structured)
    assert environment.observation_size == 5
    assert environment.action_low.tolist() == [-4, -4]
    environment.allocate(1)
    first = environment.reset(np.arange(1), np.array([[0, 9]], np.uint32))
    np.testing.assert_array_equal(first, [[0, 1, 0, 0, 9]])
    observation, *_ = environment.step(np.ones((1, 2)), None)
    np.testing.assert_array_equal(observation, [[0, 0, 1, 1, 9]])


class Sequences(GymnasiumCounting):
    observation_space = spaces.Sequence(spaces.Box(0, 1, (2,)))


class Nothing(GymnasiumCounting):
    observation_space = spaces.Box(0, 1, (0,))


@pytest.mark.parametrize(
    ("maker", "message"),
    [
        ("Pendulumm-v1", "Did you mean: `Pendulum`"),
        ("no_such_package:Some-v0", "cannot make 'no_such_package:Some-v0'"),
        (Sequences, "cannot be one vector"),
        (Nothing, "of no number, and a policy needs at least one"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_to_do(maker, message):
    with pytest.raises(ValueError, match=message):
        GymnasiumEnvironment(maker)


def test_keyword_arguments_reach_the_environment():
    heavy = make("gym:Pendulum-v1", env_kwargs={"g": 1000.0})
    light = make("gym:Pendulum-v1")
    speeds = []
    for environment in (heavy, light):
        assert isinstance(environment, GymnasiumEnvironment)
        environment.allocate(1)
        environment.reset(np.arange(1), np.array([[0, 7]], np.uint32))
        observation, *_ = environment.step(np.zeros((1, 1)), None)
        speeds.append(abs(observation[0, 2]))
    assert speeds[0] > 2 * speeds[1]
    with pytest.raises(ValueError, match="cannot make 'Pendulum-v1'"):
        make("gym:Pendulum-v1", env_kwargs={"gravity": 1.0})
    with pytest.raises(ValueError, match="are for gym:ID"):
        make("swimmer", env_kwargs={"g": 1.0})


def test_simulations_that_were_stepped_since_cannot_be_set_back():
    rollout = rollout_of(GymnasiumCounting)
    start = rollout.reset(jax.random.key(0), 2)
    thetas = jnp.ones((4, counting.NUM_PARAMETERS))
    rollout.unroll(start, thetas, 2)
    with pytest.raises(ValueError, match="were stepped since"):
        rollout.unroll(start, thetas, 2)
    with pytest.raises(ValueError, match="cannot be copied; use pes or es"):
        TruncatedES(2, 2, 0.1).init(rollout, thetas[0], jax.random.key(0))


def test_pes_on_it_is_pes_on_the_batched_environment():
    gradients = []
    batched = HostRollout(SeededHostCounting(HORIZON), counting.act, HORIZON)
    for rollout in (rollout_of(GymnasiumCounting), batched):
        estimator, theta = PES(4, 3, 0.7), jnp.array([0.25, -0.5])
        state = estimator.init(rollout, theta, jax.random.key(1))
        for key in jax.random.split(jax.random.key(2), 4):
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
        gradients.append(gradient)
    np.testing.assert_array_equal(*gradients)
