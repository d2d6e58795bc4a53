"""Own environments in JAX: returns, ends, first states and noise; and their names."""

import re
import sys
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_jax import Walk

from pes_rl.envs import DeviceRollout, PolicyProblem, make
from pes_rl.envs.names import check_name, is_in_jax
from pes_rl.envs.own import adapt, is_own

pytestmark = pytest.mark.user_compilation

HORIZON = 20


def constant(theta: jax.Array, observation: jax.Array) -> jax.Array:
    """The policy whose action is its only parameter."""
    del observation
    return theta


def rollout_of(environment: Any) -> DeviceRollout:
    return DeviceRollout(PolicyProblem(environment, constant), environment.horizon)


def play(environment: Any, actions: list[float], length: int, pairs: int = 2) -> Any:
    """(first positions, segment) of an unroll of particles with constant actions."""
    rollout = rollout_of(environment)

    @jax.jit
    def run(key: jax.Array) -> Any:
        particles = rollout.reset(key, pairs)
        thetas = jnp.asarray(actions, jnp.float32)[:, None]
        return particles.state[1][:, 0], rollout.unroll(particles, thetas, length)[1]

    return run(jax.random.key(0))


def test_the_return_is_the_closed_form():
    actions = np.array([0.25, -0.25, 0.5, -1.0])
    first, segment = play(Walk(), actions.tolist(), HORIZON)
    expected = HORIZON * np.asarray(first) + actions * HORIZON * (HORIZON + 1) / 2
    np.testing.assert_allclose(-segment.loss.sum(0), expected, rtol=1e-5)


def test_the_members_of_a_pair_meet_the_same_noise_at_the_same_step():
    """Their positions differ by the difference of their actions alone."""
    _, segment = play(Walk(noise=1.0), [0.25, -0.25, 0.25, -0.25], HORIZON)
    position = -np.asarray(segment.loss)
    steps = np.arange(1, HORIZON + 1)
    for pair in (position[:, :2], position[:, 2:]):
        np.testing.assert_allclose(pair[:, 0] - pair[:, 1], 0.5 * steps, atol=1e-4)
        # The noise is there, and differs from step to step.
        assert np.std(np.diff(pair[:, 0])) > 0.3
    assert not np.isclose(np.diff(position[:, 0]), np.diff(position[:, 2])).any()


def test_an_episode_ends_where_it_terminates_or_at_the_time_limit():
    walk = Walk(edge=1.5, start=0.0)
    _, segment = play(walk, [0.5, -0.5, 0.0, 1.0], HORIZON)
    ended = [np.flatnonzero(column) + 1 for column in np.asarray(segment.ended).T]
    # 0.5 t > 1.5 first at t = 4, and 1.0 t at t = 2; the others meet the limit.
    assert [steps.tolist() for steps in ended] == [
        [4, 8, 12, 16, 20],
        [20],
        [20],
        [2, 4, 6, 8, 10, 12, 14, 16, 18, 20],
    ]


def test_every_episode_begins_in_a_new_state_that_the_pair_shares():
    """The first step of an episode takes a position from the edge back to a new one."""
    walk = Walk(edge=0.0, start=0.5)
    _, segment = play(walk, [1.0] * 4, 10)
    assert segment.ended.all()  # so each loss is of an episode of its own
    starts = -np.asarray(segment.loss) - 1.0
    assert (np.abs(starts) <= 0.5).all()
    np.testing.assert_array_equal(starts[:, 0], starts[:, 1])
    assert len(np.unique(starts)) == 20


def test_a_reward_that_is_not_finite_ends_the_episode_as_diverged():
    class Fragile(Walk):
        def step(self, state, action):
            state, observation, reward, ended = super().step(state, action)
            return state, observation, jnp.where(reward > 2.2, jnp.nan, reward), ended

    _, segment = play(Fragile(start=0.0), [0.5, 0.0], 8, pairs=1)
    diverged = np.argwhere(np.asarray(segment.diverged))
    assert diverged.tolist() == [[4, 0]]  # 0.5 t > 2.2 first at t = 5
    np.testing.assert_array_equal(segment.ended, segment.diverged)


def test_a_name_imports_the_package_and_calls_what_it_names():
    environment: Any = make("jax:own_jax:Walk", env_kwargs={"horizon": 7, "noise": 2.0})
    assert (environment.horizon, environment.noise) == (7, 2.0)
    assert is_in_jax("jax:own_jax:Walk")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jax:own_jax:Wolk", "unknown environment of own_jax 'Wolk'; use one of: Walk"),
        ("jax:no_such_package:A", "put the folder that holds it on the PYTHONPATH"),
        ("jax:own_jax:broken", "has no observation_size"),
        ("jax:own_jax:failing", "failing could not be called with nothing: RuntimeErr"),
        ("jax:own_jax:", "unknown environment"),
        ("jax:own_jax", "unknown environment"),
        ("jax::Walk", "unknown environment"),
        ("python:jax:own_jax:Walk", "--env jax:own_jax:Walk names it if Walk() makes"),
        ("python:jax:__main__:Walk", "--env jax:MODULE:Walk names it"),
    ],
)
def test_wrong_names_say_what_to_write(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(name)


def test_unknown_keyword_arguments_name_the_call():
    with pytest.raises(ValueError, match=r"\{'color': 1\}: TypeError: .*'color'"):
        make("jax:own_jax:Walk", env_kwargs={"color": 1})
    with pytest.raises(ValueError, match=r"env_kwargs=.* are for gym:ID, .*drop them"):
        make("jax:swimmer", env_kwargs={"color": 1})


@pytest.mark.parametrize("name", ["jax:a:B", "jax:a.b:C", "brax:a:b", "gymnax:A"])
def test_names_that_only_their_package_knows_are_not_refused_before(name):
    check_name(name)
    assert is_in_jax(name)


@pytest.mark.parametrize(
    ("family", "module"), [("gymnax", "gymnax"), ("playground", "mujoco_playground")]
)
def test_a_package_that_is_not_installed(family, module, monkeypatch):
    monkeypatch.delitem(sys.modules, f"pes_rl.envs.{family}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)  # its import then fails
    with pytest.raises(ValueError, match=rf"pip install 'pes-rl\[{family}\]'"):
        make(f"{family}:Any")


def test_a_class_in_place_of_an_object_is_refused():
    with pytest.raises(ValueError, match=r"Walk is a class; .* such as Walk\(\)"):
        adapt(Walk, "Walk")


@pytest.mark.parametrize(
    ("given", "own"),
    [
        (Walk(), True),
        (Walk, True),
        (object(), True),  # and `adapt` says what it lacks
        ("swimmer", False),
        (gymnasium.Env, False),
        (gymnasium.Env(), False),
        (lambda: gymnasium.make("Pendulum-v1"), False),
    ],
)
def test_what_is_taken_for_an_environment_in_jax(given, own):
    assert is_own(given) == own
