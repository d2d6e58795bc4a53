"""Environments of Brax that a user registers, or passes as an object."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax import envs
from brax.envs.fast import Fast

from pes_rl.envs import DeviceRollout, PolicyProblem, make
from pes_rl.envs.brax import BraxEnvironment
from pes_rl.envs.names import check_name
from pes_rl.envs.own import adapt, is_own, name_of

PACKAGE = """
from brax import envs
from brax.envs.fast import Fast

class Faster(Fast):
    def __init__(self, speed=1.0):
        super().__init__()
        self.speed = speed

envs.register_environment("faster", Faster)
"""


class Line(Fast):
    """A position that starts anywhere and that the action moves; it ends beyond 2."""

    def reset(self, rng: jax.Array) -> Any:
        state: Any = super().reset(rng)
        return state.replace(obs=jax.random.uniform(rng, (2,)))

    def step(self, state: Any, action: jax.Array) -> Any:
        obs = state.obs + action[0]
        done = jnp.where(obs[0] > 2, 1.0, 0.0)
        return state.replace(obs=obs, reward=obs[0], done=done)


@pytest.fixture
def package(tmp_path, monkeypatch):
    name = f"faster_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    known = dict(envs._envs)
    yield name
    envs._envs.clear()
    envs._envs.update(known)
    sys.modules.pop(name, None)


def test_a_name_imports_the_package_that_registers_it(package):
    environment: Any = make(f"brax:{package}:faster", env_kwargs={"speed": 2.0})
    assert environment._environment.speed == 2.0
    # Now it is one of Brax's, and later settings may name it so.
    check_name("brax:faster")
    assert isinstance(make("brax:faster"), BraxEnvironment)


def test_names_that_nothing_registered_are_unknown(package):
    with pytest.raises(ValueError, match="unknown environment 'brax:faster'; use one"):
        make("brax:faster")
    with pytest.raises(ValueError, match="unknown environment 'fastest'; use one of: "):
        make(f"brax:{package}:fastest")


def test_arguments_that_the_constructor_does_not_take(package):
    with pytest.raises(ValueError, match=r"does not take \{'sped': 1\}: .*'sped'"):
        make(f"brax:{package}:faster", env_kwargs={"sped": 1})


def test_an_object_is_played_to_its_closed_form():
    line = Line()
    assert is_own(line)
    assert name_of(line).startswith("python:jax:")
    environment: Any = adapt(line, "Line")
    assert (environment.observation_size, environment.horizon) == (2, 1000)
    problem = PolicyProblem(environment, lambda theta, observation: theta)
    rollout = DeviceRollout(problem, 8)
    particles = rollout.reset(jax.random.key(0), 2)
    first = np.asarray(particles.state[1][:, 0])
    actions = np.array([0.5, -0.5, 0.5, -0.5], np.float32)
    _, segment = jax.jit(rollout.unroll, static_argnums=2)(
        particles, jnp.asarray(actions)[:, None], 8
    )
    # Member 1 of each pair goes down until the time limit.
    expected = first[1::2, None] - 0.5 * np.arange(1, 9)
    np.testing.assert_allclose(-segment.loss[:, 1::2].T, expected, rtol=1e-5)
    # Member 0 terminates where it is first above 2, and starts elsewhere then.
    length = np.floor((2 - first[0]) / 0.5).astype(int) + 1
    ends = np.flatnonzero(np.asarray(segment.ended)[:, 0]) + 1
    assert ends[0] == length
    assert first[0] == first[1] != first[2]
    second = -segment.loss[length, 0] - 0.5
    assert 0 <= second <= 1
    assert second != pytest.approx(first[0])


@pytest.mark.parametrize("options", [{}, {"auto_reset": False}])
def test_brax_s_training_wrappers_are_refused(options):
    wrapped = envs.create("fast", **options)
    message = r"AutoResetWrapper|EpisodeWrapper.*pass environment\.unwrapped"
    with pytest.raises(ValueError, match=message):
        adapt(wrapped, "fast")
    environment: Any = adapt(wrapped.unwrapped, "fast")
    assert environment.observation_size == 2


def test_wrappers_of_the_user_s_are_kept():
    class Doubled(envs.Wrapper):
        def step(self, state, action):
            after: Any = super().step(state, action)
            return after.replace(reward=2 * after.reward)

    environment: Any = adapt(Doubled(Line()), "Doubled")
    state, observation = environment.reset(jax.random.key(0))
    _, _, reward, _ = environment.step(state, jnp.zeros(1))
    assert reward == 2 * observation[0]


def test_a_reset_that_cannot_be_traced_is_named_with_its_line():
    class Broken(Line):
        def reset(self, rng: jax.Array) -> Any:
            raise KeyError("no legs")

    with pytest.raises(
        ValueError, match=r"Broken: reset\(key\) cannot be traced .*legs"
    ):
        adapt(Broken(), "broken")
