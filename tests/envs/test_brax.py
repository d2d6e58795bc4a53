"""Brax environments on the device driver."""

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax import base, envs
from brax.envs.fast import Fast, ObservationMode
from jax import lax

from pes_rl.envs import DeviceRollout, Particles, PolicyProblem, Segment
from pes_rl.envs.brax import BraxEnvironment, repair_fluid
from pes_rl.envs.names import BRAX_NAMES
from pes_rl.envs.registry import has_faster_backend


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under `jax.jit`, in half the time: compiling is most of it here."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(function, compiler_options=options)


def linear_rollout(environment: BraxEnvironment) -> tuple[DeviceRollout, int]:
    """Rollout of a linear policy, and the number of its parameters."""
    shape = len(environment.action_high), environment.observation_size

    def act(theta: jax.Array, observation: jax.Array) -> jax.Array:
        return theta.reshape(shape) @ observation

    rollout = DeviceRollout(PolicyProblem(environment, act), environment.horizon)
    return rollout, shape[0] * shape[1]


def unroll_once(
    environment: BraxEnvironment, num_pairs: int, length: int
) -> tuple[Particles, Segment]:
    """Particles and segment of one unroll under random parameters."""
    rollout, num_parameters = linear_rollout(environment)
    thetas = jax.random.normal(jax.random.key(1), (2 * num_pairs, num_parameters))

    def run(key: jax.Array) -> tuple[Particles, Segment]:
        return rollout.unroll(rollout.reset(key, num_pairs), thetas, length)

    return compiled(run)(jax.random.key(0))


def assert_sound(segment: Segment, length: int, num_particles: int) -> None:
    assert segment.loss.shape == (length, num_particles)
    assert segment.loss.dtype == jnp.float32
    assert segment.ended.dtype == bool
    assert jnp.isfinite(segment.loss).all()
    assert not segment.diverged.any()


def test_the_registry_names_what_brax_has() -> None:
    assert set(BRAX_NAMES) == set(envs._envs)


def test_fast_unrolls() -> None:
    environment = BraxEnvironment("fast")
    assert environment.observation_size == 2
    assert environment.horizon == 1000
    np.testing.assert_array_equal(environment.action_low, np.array([-1], np.float32))
    np.testing.assert_array_equal(environment.action_high, np.array([1], np.float32))
    particles, segment = unroll_once(environment, num_pairs=3, length=4)
    assert_sound(segment, 4, 6)
    assert particles.state[1].shape == (6, 2)
    assert particles.state[1].dtype == jnp.float32


def test_swimmer_swims() -> None:
    environment = BraxEnvironment("swimmer")

    def swim(key: jax.Array) -> tuple[Any, ...]:
        state, first = environment.reset(key)
        _, observation, reward, terminated = environment.step(state, jnp.ones(2))
        return first, observation, reward, terminated

    first, observation, reward, terminated = compiled(swim)(jax.random.key(0))
    assert first.shape == observation.shape == (8,)
    assert jnp.isfinite(observation).all()
    assert not jnp.any(first == observation)
    assert reward != 0
    assert not terminated


@pytest.mark.slow
@pytest.mark.parametrize("name", BRAX_NAMES)
def test_every_environment_unrolls(name: str) -> None:
    environment = BraxEnvironment(name)
    particles, segment = unroll_once(environment, num_pairs=1, length=3)
    assert_sound(segment, 3, 2)
    assert particles.state[1].shape == (2, environment.observation_size)


@pytest.fixture(scope="module")
def pendulum_firsts() -> list[np.ndarray]:
    """The first observation of each episode of each of 2 x 2 inverted pendulums."""
    rollout, num_parameters = linear_rollout(BraxEnvironment("inverted_pendulum"))
    # Each pair has a member that pushes the cart away from where it should go.
    thetas = jnp.tile(jnp.array([[30.0], [-30.0]]), (2, num_parameters))

    def one_step(particles: Particles, _: None) -> tuple[Particles, Any]:
        particles, segment = rollout.unroll(particles, thetas, 1)
        return particles, (particles.state[1], segment.loss[0], segment.ended[0])

    def play(key: jax.Array) -> tuple[jax.Array, Any]:
        particles = rollout.reset(key, 2)
        return particles.state[1], lax.scan(one_step, particles, length=150)[1]

    first, (observation, loss, ended) = compiled(play)(jax.random.key(0))
    np.testing.assert_array_equal(loss, -np.ones((150, 4), np.float32))
    return [
        np.concatenate([first[i : i + 1], observation[ended[:, i], i]])
        for i in range(4)
    ]


def test_each_episode_starts_from_a_new_state(
    pendulum_firsts: list[np.ndarray],
) -> None:
    for firsts in pendulum_firsts:
        assert len(firsts) > 3
        assert len(np.unique(firsts, axis=0)) == len(firsts)


def test_pair_members_share_the_first_states_of_their_episodes(
    pendulum_firsts: list[np.ndarray],
) -> None:
    one, other, stranger, _ = pendulum_firsts
    assert len(one) != len(other), "they should have ended at different steps"
    shared = min(len(one), len(other))
    np.testing.assert_array_equal(one[:shared], other[:shared])
    assert not np.isin(one, stranger).any()


class Sloppy(Fast):
    """Returns Python numbers from `step` and writes into the state it is given."""

    def reset(self, rng: jax.Array) -> Any:
        state: Any = super().reset(rng)
        return state.replace(metrics={"speed": jnp.zeros(())})

    def step(self, state: Any, action: jax.Array) -> Any:
        state.metrics.update(speed=1.0)
        after: Any = super().step(state, action)
        return after.replace(reward=1.0, done=1.0)


def test_sloppy_environments_unroll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(envs._envs, "sloppy", Sloppy)
    environment = BraxEnvironment("sloppy")
    _, segment = unroll_once(environment, num_pairs=1, length=3)
    np.testing.assert_array_equal(segment.loss, -np.ones((3, 2), np.float32))
    assert segment.ended.all()


def test_step_leaves_its_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(envs._envs, "sloppy", Sloppy)
    environment = BraxEnvironment("sloppy")
    before, _ = environment.reset(jax.random.key(0))
    after, *_ = environment.step(before, jnp.ones(1))
    assert (before.metrics["speed"], after.metrics["speed"]) == (0, 1)


def pristine_fluid() -> ModuleType:
    """`brax.fluid` as it was installed."""
    spec = importlib.util.find_spec("brax.fluid")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def water_force(fluid: ModuleType) -> base.Force:
    """Force of water on two moving links, by the given copy of `brax.fluid`."""
    rest = base.Transform.zero((2,))
    link = SimpleNamespace(inertia=SimpleNamespace(transform=rest))
    water = SimpleNamespace(link=link, density=4000.0, viscosity=0.1)
    velocity = jnp.arange(6.0).reshape(2, 3)
    inertia = jnp.stack([jnp.diag(jnp.array([1.0, 2.0, 3.0])), jnp.zeros((3, 3))])
    return fluid.force(
        water, rest, base.Motion(velocity, -velocity), jnp.ones(2), inertia
    )


@pytest.fixture
def default_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("default_promotion")
def test_the_repair_of_fluid_is_still_needed() -> None:
    try:
        water_force(pristine_fluid())
    except TypeError as error:
        assert "a_min" in str(error)
    else:
        pytest.fail(
            "brax.fluid runs unrepaired: delete repair_fluid from envs/brax.py, "
            "raise the brax requirement in pyproject.toml, and delete this test"
        )


@pytest.mark.usefixtures("default_promotion")
def test_the_repair_of_fluid_changes_nothing_else() -> None:
    fluid = pristine_fluid()
    repair_fluid(fluid)
    fluid_of_today = pristine_fluid()
    source = inspect.getsource(fluid_of_today)
    exec(source.replace("a_min=", "min="), vars(fluid_of_today))
    jax.tree.map(
        np.testing.assert_array_equal, water_force(fluid), water_force(fluid_of_today)
    )
    with pytest.raises(TypeError, match="a_min"):
        jnp.clip(jnp.zeros(1), a_min=1.0)


def test_unknown_names_list_the_known_ones_nearest_first() -> None:
    with pytest.raises(ValueError, match="'half_cheetah'; use one of: halfcheetah"):
        BraxEnvironment("half_cheetah")


def test_unknown_backends_list_the_known_ones_nearest_first() -> None:
    with pytest.raises(ValueError, match="'general'; use one of: generalized"):
        BraxEnvironment("fast", "general")


def test_a_backend_that_the_environment_refuses_says_what_to_use() -> None:
    with pytest.raises(ValueError, match=r"'mjx' does not fit 'swimmer'.*backend=None"):
        BraxEnvironment("swimmer", "mjx")


def test_dictionary_observations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make = partial(Fast, obs_mode=ObservationMode.DICT_STATE)
    monkeypatch.setitem(envs._envs, "fast_dict", make)
    with pytest.raises(ValueError, match=r"{'state': \(2,\)}, but a policy takes one"):
        BraxEnvironment("fast_dict")


def test_mujocos_warnings_about_the_model_are_logged(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert BraxEnvironment("halfcheetah").action_low.shape == (6,)
    assert "settotalmass" not in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_faster_backend_is_known_where_there_is_one():
    assert has_faster_backend("brax:ant", None)
    assert has_faster_backend("brax:ant", "generalized")
    assert not has_faster_backend("brax:ant", "spring")
    assert not has_faster_backend("brax:swimmer", None)
    assert not has_faster_backend("ant", None)
