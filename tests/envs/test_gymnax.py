"""Environments of gymnax on the device driver."""

# gymnax is an optional dependency.
# pyright: reportMissingImports=false

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

gymnax: Any = pytest.importorskip("gymnax")
# After the line that skips these tests.
from flax import struct  # noqa: E402
from gymnax.environments import environment as base, spaces  # noqa: E402

import pes_rl  # noqa: E402
from pes_rl.agents import Policy  # noqa: E402
from pes_rl.assembly.factories import make_policy  # noqa: E402
from pes_rl.config.train_config import make_config, make_fitted_config  # noqa: E402
from pes_rl.envs import DeviceRollout, PolicyProblem, make  # noqa: E402
from pes_rl.envs.gymnax import GymnaxEnvironment  # noqa: E402
from pes_rl.envs.interface import check_interface  # noqa: E402
from pes_rl.envs.own import adapt, is_own  # noqa: E402
from pes_rl.envs.time_limit import time_limit  # noqa: E402
from pes_rl.rendering.film import make_film  # noqa: E402


@struct.dataclass
class DriftState(base.EnvState):
    position: Any
    time: Any


@struct.dataclass
class DriftParams(base.EnvParams):
    noise: float = 1.0
    edge: float = 1e6
    max_steps_in_episode: int = 7


class Drift(base.Environment):
    """A position that actions and noise move; the reward is the position."""

    @property
    def default_params(self):
        return DriftParams()

    def reset_env(self, key, params):
        state = DriftState(position=jax.random.uniform(key), time=0)
        return {"b": jnp.ones((1, 2)), "a": state.position}, state

    def step_env(self, key, state, action: Any, params):
        position = state.position + action.sum()
        position = position + params.noise * jax.random.normal(key)
        state = DriftState(position=position, time=state.time + 1)
        observation = {"b": jnp.ones((1, 2)), "a": position}
        return observation, state, position, self.is_terminated(state, params), {}

    def is_terminated(self, state, params):
        return state.position > params.edge

    def action_space(self, params):
        return spaces.Box(-1.0, jnp.array([[1.0, 2.0]]), (1, 2))


def unroll(environment: Any, actions: list[float], horizon: int, length: int) -> Any:
    """(first positions, segment) of two pairs whose actions are constant."""
    size = len(environment.action_low)
    problem = PolicyProblem(environment, lambda theta, _: jnp.broadcast_to(theta, size))
    rollout = DeviceRollout(problem, horizon)

    @jax.jit
    def run(key: jax.Array) -> Any:
        particles = rollout.reset(key, 2)
        thetas = jnp.asarray(actions, jnp.float32)[:, None]
        return particles.state[1][:, 0], rollout.unroll(particles, thetas, length)[1]

    return run(jax.random.key(0))


def test_an_object_s_sizes_bounds_and_time_limit():
    environment: Any = adapt(Drift(), "Drift")
    assert is_own(Drift())
    check_interface(environment, "Drift")
    assert (environment.observation_size, environment.horizon) == (3, 7)
    assert environment.action_low.tolist() == [-1, -1]
    assert environment.action_high.tolist() == [1, 2]
    assert not environment.differentiable
    _, observation = environment.reset(jax.random.key(0))
    assert 0 <= observation[0] <= 1  # "a", and then the two numbers of "b"
    assert observation[1:].tolist() == [1, 1]


def test_pairs_share_their_noise_and_their_first_states():
    first, segment = unroll(GymnaxEnvironment(Drift()), [0.5, -0.5] * 2, 7, 7)
    position, steps = -np.asarray(segment.loss), np.arange(1, 8)
    for k in (0, 2):
        assert first[k] == first[k + 1]
        # Two actions of 0.5 each.
        difference = position[:, k] - position[:, k + 1]
        np.testing.assert_allclose(difference, 2 * steps, atol=1e-4)
        assert np.std(np.diff(position[:, k])) > 0.3
    assert not np.isclose(np.diff(position[:, 0]), np.diff(position[:, 2])).any()


def test_gymnax_s_time_limit_is_the_engine_s_and_its_end_is_an_end():
    drift = GymnaxEnvironment(Drift(), {"noise": 0.0, "edge": 9.0})
    _, segment = unroll(drift, [0.5, 0.0, 1.0, 0.0], 20, 20)
    ended = [np.flatnonzero(column) + 1 for column in np.asarray(segment.ended).T]
    # From x0 in [0, 1], beyond 9 at step 9 by 1 a step, and at step 5 by 2; never
    # without moving, so that episode goes on past gymnax's 7 steps to the horizon.
    assert ended[0][0] == 9
    assert ended[1].tolist() == [20]
    assert ended[2][0] == 5


def test_a_discrete_action_is_the_largest_output():
    """CartPole as gymnax itself steps it."""
    environment: Any = make("gymnax:CartPole-v1")
    assert environment.action_low.tolist() == [-np.inf] * 2
    assert environment.action_high.tolist() == [np.inf] * 2
    assert environment.horizon == 500
    theirs, parameters = gymnax.make("CartPole-v1")
    ours, observation = environment.reset(jax.random.key(3))
    state = ours[0]
    for outputs, action in (([0.0, 2.0], 1), ([-1.0, -3.0], 0), ([9.0, 9.5], 1)):
        ours, observation, reward, ended = environment.step(ours, jnp.array(outputs))
        key = jax.random.key(0)
        with jax.numpy_dtype_promotion("standard"):
            expected, state, their_reward, *_ = theirs.step_env(
                key, state, action, parameters
            )
        np.testing.assert_array_equal(observation, expected)
        assert (reward, bool(ended)) == (float(their_reward), False)


def test_parameters_are_keyword_arguments():
    environment: Any = make(
        "gymnax:Pendulum-v1", env_kwargs={"max_torque": 5, "max_steps_in_episode": 30}
    )
    assert (environment.action_high.tolist(), environment.horizon) == ([5], 30)
    assert environment.differentiable
    sea: Any = make("gymnax:DeepSea-bsuite", env_kwargs={"size": 5})
    assert (sea.observation_size, sea.horizon) == (25, 5)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Pendulum", {}, "environment of gymnax 'Pendulum'; use one of: Pendulum-v1"),
        ("Pendulum-v1", {"torque": 1}, r"{'torque': 1}: .*parameters are .*max_torque"),
    ],
)
def test_wrong_names_and_arguments_say_what_to_write(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(f"gymnax:{name}", env_kwargs=kwargs)


def test_actions_of_another_kind_are_refused():
    class Strange(Drift):
        def action_space(self, params):
            return spaces.Dict({})

    with pytest.raises(ValueError, match="has actions of Dict; a policy's are a Box"):
        GymnaxEnvironment(Strange())


def test_it_is_not_filmed():
    with pytest.raises(ValueError, match="is not drawn: gymnax has no"):
        make_film(make_config("gymnax:CartPole-v1", "pes"), 64)


def test_a_policy_without_bounds_acts():
    config = make_config("gymnax:CartPole-v1", "pes")
    policy: Policy = make_policy(config, make("gymnax:CartPole-v1"))
    theta = np.arange(policy.num_parameters, dtype=np.float32)
    action = policy.act(theta, np.array([1.0, 0.0, 0.0, 100.0]))
    assert np.isfinite(action).all()
    assert np.abs(action).max() > 300


@pytest.mark.slow
@pytest.mark.parametrize("name", gymnax.registered_envs)
def test_every_environment_has_the_interface(name):
    try:
        environment = GymnaxEnvironment(name)
    except ValueError as error:
        if "cannot load what" not in str(error):
            raise
        pytest.skip(str(error))  # it downloads images
    check_interface(environment, name)


@pytest.mark.slow
def test_cartpole_is_learned(tmp_path):
    """From some 10 steps to most of 500, with the general settings."""
    result = pes_rl.train(
        "gymnax:CartPole-v1", total_timesteps=400_000, logdir=tmp_path / "run"
    )
    assert result.summary["final_return"] > 300
    policy = pes_rl.load_policy(tmp_path / "run")
    assert policy(np.zeros(4)).shape == (2,)


def test_defaults_fit_the_time_limit_of_a_name():
    assert time_limit("gymnax:CartPole-v1", {}) == 500
    options = '{"max_steps_in_episode": 30}'
    config = make_fitted_config("gymnax:CartPole-v1", "pes", env_kwargs=options)
    assert config.truncation_length == 30
    assert time_limit("gymnax:NoSuch-v1", {}) is None
