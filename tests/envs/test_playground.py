"""Environments of MuJoCo Playground on the device driver."""

# Playground is an optional dependency.
# pyright: reportMissingImports=false

import shutil
import subprocess
import sys
from typing import Any

import imageio.v2 as imageio
import jax
import jax.numpy as jnp
import numpy as np
import pytest

playground: Any = pytest.importorskip("mujoco_playground")
# After the line that skips these tests.
from ml_collections import config_dict  # noqa: E402
from quick_run import QUICK  # noqa: E402

import pes_rl  # noqa: E402
from pes_rl import evaluate  # noqa: E402
from pes_rl.envs import DeviceRollout, PolicyProblem, make  # noqa: E402
from pes_rl.envs.interface import check_interface  # noqa: E402
from pes_rl.envs.own import adapt, is_own  # noqa: E402
from pes_rl.envs.playground import PlaygroundEnvironment  # noqa: E402
from pes_rl.envs.time_limit import time_limit  # noqa: E402
from pes_rl.training import command as train  # noqa: E402

HORIZON = 7


class Drift(playground.MjxEnv):
    """A position that the action moves; no physics. It ends beyond 3."""

    xml_path, action_size, mj_model, mjx_model = "", 1, None, None

    def __init__(self, *entries: str) -> None:
        config = config_dict.create(ctrl_dt=0.1, sim_dt=0.1, episode_length=HORIZON)
        super().__init__(config)
        self._entries = entries

    def _observe(self, position: jax.Array) -> Any:
        if not self._entries:
            return position[None]
        parts = enumerate(self._entries)
        return {name: position[None] + float(i) for i, name in parts}

    def reset(self, rng: jax.Array) -> Any:
        rng, first = jax.random.split(rng)
        position = jax.random.uniform(first)
        zero, info = jnp.zeros(()), {"rng": rng}
        observation = self._observe(position)
        return playground.State(position, observation, zero, zero, {}, info)

    def step(self, state: Any, action: jax.Array) -> Any:
        state.info["rng"], noise = jax.random.split(state.info["rng"])
        position = state.data + action[0] + 0.125 * jax.random.normal(noise)
        done = jnp.where(position > 3, 1.0, 0.0)
        observation = self._observe(position)
        return playground.State(position, observation, position, done, {}, state.info)


def test_an_object_s_episodes():
    """Ends, time limit, and noise and first states that pairs share."""
    environment: Any = adapt(Drift(), "Drift")
    assert is_own(Drift())
    check_interface(environment, "Drift")
    assert (environment.observation_size, environment.horizon) == (1, HORIZON)
    assert environment.action_low.tolist() == [-1]
    assert environment.action_high.tolist() == [1]
    problem = PolicyProblem(environment, lambda theta, observation: theta)
    rollout = DeviceRollout(problem, environment.horizon)

    @jax.jit
    def run(key: jax.Array) -> Any:
        particles = rollout.reset(key, 2)
        thetas = jnp.array([[0.0], [-0.5], [1.0], [-1.0]])
        return particles.state[1][:, 0], rollout.unroll(particles, thetas, 14)[1]

    first, segment = run(jax.random.key(0))
    position, ended = -np.asarray(segment.loss), np.asarray(segment.ended)
    assert first[0] == first[1] != first[2]
    np.testing.assert_allclose(
        (position[:, 0] - position[:, 1])[:HORIZON],
        0.5 * np.arange(1, HORIZON + 1),
        atol=1e-5,
    )
    assert np.std(np.diff(position[:HORIZON, 0])) > 0.01
    assert not np.isclose(position[1:, 0] - position[:-1, 0], 0).any()
    for k in (0, 1, 3):  # These never come to 3.
        assert np.flatnonzero(ended[:, k]).tolist() == [6, 13]
    early = np.flatnonzero(ended[:, 2])
    assert early[0] < 5
    assert (position[early, 2] > 3).all()
    # The second episode begins elsewhere, and alike in the pair.
    starts = position[HORIZON, :2] + [0.0, 0.5]
    assert starts[0] == pytest.approx(starts[1], abs=1e-5)
    assert abs(starts[0] - (position[0, 0])) > 1e-3


@pytest.mark.parametrize(
    ("entries", "shift"),
    [(("privileged_state", "state"), [1]), (("b", "a"), [1, 0])],
    ids=["state", "all by sorted names"],
)
def test_the_part_of_a_dictionary_that_the_policy_sees(entries, shift):
    plain: Any = adapt(Drift(), "Drift")
    environment: Any = adapt(Drift(*entries), "Drift")
    assert environment.observation_size == len(shift)
    key = jax.random.key(0)
    expected = np.asarray(plain.reset(key)[1]) + np.array(shift, np.float32)
    np.testing.assert_array_equal(environment.reset(key)[1], expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "CheetaRun",
            {},
            "environment of Playground 'CheetaRun'; use one of: CheetahR",
        ),
        (
            "CheetahRun",
            {"backend": "mjx"},
            "unknown backend 'mjx'; use one of: jax, wa",
        ),
        (
            "CheetahRun",
            {"env_kwargs": {"episode_lenth": 3}},
            r"does not take episode_lenth=3: .*; its settings are .*, episode_length",
        ),
    ],
)
def test_wrong_names_and_settings_say_what_to_write(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(f"playground:{name}", **options)


def test_the_time_limit_of_a_name_is_known_without_making_it(monkeypatch):
    monkeypatch.setattr(playground.registry, "load", pytest.fail)
    assert time_limit("playground:CheetahRun", {}) == 1000
    assert time_limit("playground:CheetahRun", {"episode_length": 40}) == 40
    assert time_limit("playground:CheetahRun", {"no_setting": 1}) is None


def test_robots_that_cannot_be_downloaded(monkeypatch):
    def fail(*_, **__):
        raise subprocess.CalledProcessError(128, ["git", "clone"])

    monkeypatch.setattr("pes_rl.envs.playground.registry.load", fail)
    with pytest.raises(ValueError, match="needs the robots of mujoco_menagerie"):
        make("playground:Go1JoystickFlatTerrain")


@pytest.mark.slow
@pytest.mark.parametrize("name", playground.dm_control_suite.ALL_ENVS)
def test_every_control_task_has_the_interface(name):
    environment: Any = PlaygroundEnvironment(name)
    check_interface(environment, name)
    model = environment.model
    np.testing.assert_array_equal(model.actuator_ctrlrange[:, 0], -1)
    np.testing.assert_array_equal(model.actuator_ctrlrange[:, 1], 1)


@pytest.mark.slow
def test_a_task_is_trained_resumed_evaluated_and_filmed(tmp_path):
    """With the physics of MJX, and keys in its states."""
    folder, copy = tmp_path / "run", tmp_path / "copy"
    name, options = "playground:CartpoleBalance", {**QUICK, "eval_interval": 240}
    pes_rl.train(name, logdir=folder, **options)
    shutil.copytree(folder, copy)
    steps = min(int(path.name) for path in (copy / "checkpoints").glob("[0-9]*"))
    assert train.main(["--resume", f"{copy}/checkpoints/{steps}"]) == 0
    one, other = (pes_rl.load_policy(run, "last").theta for run in (folder, copy))
    np.testing.assert_array_equal(one, other)
    assert one.any()
    assert evaluate.main([str(folder), "--episodes", "2"]) == 0
    # In a process of its own, whose MuJoCo binds to a backend that draws.
    out = str(tmp_path / "film.gif")
    command = [sys.executable, "-m", "pes_rl.video", str(folder), "--out", out]
    done = subprocess.run(
        [*command, "--size", "64", "--steps", "6"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    film = imageio.mimread(out)
    assert [picture.shape[:2] for picture in film] == [(64, 64)] * len(film)
    assert len(film) > 1
    assert np.std(film[0]) > 1
