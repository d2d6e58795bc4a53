"""Every space of observations and actions, however simulations are stepped."""

from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation
from gymnasium_counting import GymnasiumCounting
from spaces_counting import (
    ACTIONS,
    CHOSEN,
    FLATTENED,
    LENGTH,
    SpacesCounting,
    TextActions,
)

from pes_rl.envs import HostRollout, make
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.gymnasium.simulations import BrokenEnvironment

KEYS = np.array([[0, 7], [0, 7], [1, 8]], np.uint32)
IDS = np.arange(3)


def started(make: Any, **options: Any) -> tuple[GymnasiumEnvironment, np.ndarray]:
    environment = GymnasiumEnvironment(make, **options)
    environment.allocate(3)
    return environment, environment.reset(IDS, KEYS)


@pytest.mark.parametrize("name", FLATTENED)
def test_observations_are_vectors(name):
    environment, first = started(partial(SpacesCounting, name), vectorization="sync")
    assert environment.observation_size == len(FLATTENED[name])
    assert first.shape == (3, len(FLATTENED[name]))
    for _ in range(4):
        rows, *_ = environment.step(np.zeros((3, 2)), None)
    assert rows.tolist() == 3 * [FLATTENED[name]]


@pytest.mark.parametrize("name", ACTIONS)
def test_outputs_become_actions(name):
    environment, _ = started(partial(SpacesCounting, "vector", name))
    outputs, action = CHOSEN[name]
    numbers = np.ravel(action)
    _, rewards, _ = environment.step(np.array(3 * [outputs]), None)
    assert rewards.tolist() == 3 * [float(numbers @ 10.0 ** np.arange(len(numbers)))]
    bound = 9.0 if isinstance(ACTIONS[name], spaces.Box) else np.inf
    assert environment.action_high.tolist() == len(outputs) * [bound]
    assert environment.action_low.tolist() == len(outputs) * [-bound]


def test_stacked_frames_are_one_vector():
    environment, first = started(
        lambda: FrameStackObservation(GymnasiumCounting(), 3), vectorization="sync"
    )
    assert first[0].tolist() == [0, 7, 0, 7, 0, 7]
    environment.step(np.zeros((3, 1)), None)
    rows, *_ = environment.step(np.zeros((3, 1)), None)
    assert rows[:, ::2].tolist() == 3 * [[0, 1, 2]]


def vector_env(cls: Any, mode: AutoresetMode, make: Any) -> Any:
    options: dict[str, Any] = {"context": "spawn"} if cls is AsyncVectorEnv else {}
    return cls([make] * 3, autoreset_mode=mode, **options)


def played(make: Any, **options: Any) -> list[Any]:
    """What an environment returns when simulations wait and episodes end."""
    environment, first = started(make, **options)
    generator, found = np.random.default_rng(0), [first]
    for step in range(2 * LENGTH):
        # Simulation 1 waits at the start of its second episode.
        ids = np.array([0, 2]) if step in (LENGTH, LENGTH + 1) else IDS
        outputs = generator.normal(size=(len(ids), len(environment.action_low)))
        rows, rewards, ended = environment.step(outputs, ids)
        found += [rows, rewards, ended]
        if ended.any():
            found.append(environment.reset(ids[ended], KEYS[ids[ended]]))
    environment.close()
    return found


@pytest.mark.parametrize(
    ("observation", "action"),
    [("nested", "multi-discrete"), ("image", "discrete"), ("tuple", "matrix")],
)
def test_every_vectorization_gives_the_same(observation, action):
    make = partial(SpacesCounting, observation, action)
    expected = played(make, vectorization="sync")
    others = [played(make, vectorization="async", num_threads=2)]
    for mode in AutoresetMode:
        others.append(played(vector_env(SyncVectorEnv, mode, make)))
    if observation == "nested":
        envs = vector_env(AsyncVectorEnv, AutoresetMode.SAME_STEP, make)
        others.append(played(envs))
        envs.close()
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, expected)


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_envpool_s_discrete_actions_are_gymnasium_s():
    """CartPole from the same state: the same pushes, the same end."""
    pytest.importorskip("envpool")
    environment, first = started("CartPole-v1", vectorization="envpool", num_threads=1)
    env: Any = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    env.state, steps, ended = first[0], 0, np.zeros(3, bool)
    while not ended[0]:
        choice = int(steps % 3 == 0)
        outputs = np.eye(2)[[choice] * 3]
        rows, _, ended = environment.step(outputs, None)
        observation, _, terminated, *_ = env.step(choice)
        steps += 1
        np.testing.assert_allclose(rows[0], observation, rtol=1e-4)
        assert ended[0] == terminated


class Texts(GymnasiumCounting):
    observation_space: Any = spaces.Dict(
        {"a": spaces.Box(0, 1, (2,)), "words": spaces.Text(5)}
    )


class Graphs(GymnasiumCounting):
    observation_space: Any = spaces.Graph(spaces.Box(0, 1, (2,)), None)


ODD_KEYS: Any = {("a", 1): spaces.Box(0, 1, (2,))}


class OddKeys(GymnasiumCounting):
    observation_space: Any = spaces.Dict(ODD_KEYS)


class SequenceActions(GymnasiumCounting):
    action_space: Any = spaces.Sequence(spaces.Discrete(2))


@pytest.mark.parametrize(
    ("maker", "message"),
    [
        (Texts, r"because of Text\(.*wrappers.TransformObservation.* leaves it out"),
        (Graphs, r"because of Graph\(.*wrappers.TransformObservation"),
        (OddKeys, r"the key \('a', 1\) of a Dict cannot be saved .*; use a text"),
        (TextActions, r"actions are Text\(.*wrappers.TransformAction"),
        (SequenceActions, r"actions are Sequence\(.*wrappers.TransformAction"),
    ],
)
def test_spaces_that_cannot_work_say_what_to_do(maker, message):
    with pytest.raises(ValueError, match=message):
        GymnasiumEnvironment(maker, vectorization="sync")
    envs = [maker] * 2
    if maker in (Texts, TextActions):
        with pytest.raises(ValueError, match=message):
            GymnasiumEnvironment(SyncVectorEnv(envs))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_observations_that_do_not_fit_their_space_are_reported(vectorization):
    class Wrong(SpacesCounting):
        def step(self, action: Any) -> Any:
            observation, *rest = super().step(action)
            if self.steps == 2:
                del observation["on"]
            return observation, *rest

    environment, _ = started(
        partial(Wrong, "nested"), vectorization=vectorization, num_threads=1
    )
    environment.step(np.zeros((3, 2)), None)
    with pytest.raises(BrokenEnvironment, match=r"step 2 .* be read: KeyError"):
        environment.step(np.zeros((3, 2)), None)


def sampled(action: str, outputs: list[float], steps: int) -> np.ndarray:
    """Rewards of one long episode of the same outputs, with the actions sampled."""

    class Endless(SpacesCounting):
        def step(self, action: Any) -> Any:
            self.steps = 0
            return super().step(action)

    environment = GymnasiumEnvironment(
        partial(Endless, "vector", action), vectorization="sync", sample_actions=True
    )
    environment.allocate(1)
    environment.reset(np.arange(1), KEYS[:1])
    rows = np.array([outputs])
    return np.array([environment.step(rows, None)[1][0] for _ in range(steps)])


@pytest.mark.parametrize(
    ("action", "outputs", "reward", "probability"),
    [
        ("discrete", [0.0, 1.0, -1.0], 6.0, np.e / (1 + np.e + 1 / np.e)),
        ("multi-binary", [1.0, -99.0, -99.0], 1.0, 1 / (1 + np.exp(-1))),
        # 1 of {0, 1}, 4 of {4, 5, 6}.
        ("multi-discrete", [0.0, 1.0, 2.0, 0.0, 0.0], 41.0, np.nan),
    ],
)
def test_sampled_actions_have_the_probabilities_of_the_softmax(
    action, outputs, reward, probability
):
    if np.isnan(probability):
        probability = np.e / (1 + np.e) * np.exp(2) / (np.exp(2) + 2)
    count = 3000
    share = (sampled(action, outputs, count) == reward).mean()
    # 4.5 standard deviations: false in 7 of a million keys.
    bound = 4.5 * np.sqrt(probability * (1 - probability) / count)
    assert abs(share - probability) < bound


def test_the_noise_of_sampled_actions_belongs_to_the_episode_and_its_step():
    """Pairs share it, whatever the other simulations do; another key has another."""
    environment = GymnasiumEnvironment(
        partial(SpacesCounting, "vector", "discrete"),
        vectorization="sync",
        sample_actions=True,
    )
    environment.allocate(3)
    outputs = np.zeros((3, 3))

    def rewards(order: list[list[int]]) -> list[list[float]]:
        environment.reset(IDS, KEYS)
        found: list[list[float]] = [[], [], []]
        for ids in order:
            _, values, _ = environment.step(outputs[ids], np.array(ids))
            for i, value in zip(ids, values, strict=True):
                found[i].append(float(value))
        return found

    together = rewards(4 * [[0, 1, 2]])
    assert together[0] == together[1] != together[2]
    assert len(set(together[0])) > 1
    assert rewards([[2], [0], [0, 1], [2, 1], [0], [1, 2], [0, 1, 2]]) == together


def test_sampled_actions_are_refused_where_there_are_no_choices():
    with pytest.raises(ValueError, match="these are a Box of shape"):
        GymnasiumEnvironment("Pendulum-v1", sample_actions=True)
    with pytest.raises(ValueError, match="drop it for swimmer"):
        make("swimmer", sample_actions=True)


def test_pairs_of_equal_policies_meet_the_same_sampled_actions():
    """Through the engine, over several episodes of the members."""
    environment = GymnasiumEnvironment(
        partial(SpacesCounting, "nested", "multi-discrete"),
        vectorization="sync",
        sample_actions=True,
    )
    rollout = HostRollout(environment, lambda thetas, _: 0 * thetas, 50)
    particles = rollout.reset(jax.random.key(0), 4)
    _, segment = rollout.unroll(particles, jnp.zeros((8, 5)), 3 * LENGTH)
    losses = np.asarray(segment.loss)
    np.testing.assert_array_equal(losses[:, 0::2], losses[:, 1::2])
    assert len(np.unique(losses[:, 0::2], axis=1).T) == 4
    assert segment.ended.sum() == 3 * 8
