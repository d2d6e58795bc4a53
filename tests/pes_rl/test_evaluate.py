"""A policy taken home: loaded, played in a plain loop, evaluated by the command."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import pes_rl
from pes_rl import evaluate
from pes_rl.agents import Policy
from pes_rl.assembly.factories import family_options, make_environment
from pes_rl.config.train_config import make_config
from pes_rl.run_folder.policy_files import save_policy
from pes_rl.run_folder.reader import read_source
from pes_rl.run_folder.trained_policy import make_trained
from pes_rl.training import command as train

ROOT = Path(__file__).parents[2]
QUICK = (
    "--env gym:Pendulum-v1 --agent pes --total-timesteps 200 --num-pairs 1 "
    "--truncation-length 50 --final-eval-episodes 2 --eval-episodes 1 "
    "--eval-interval 100 --normalize-observations"
)

PENDULUM = Policy(3, (-2.0,), (2.0,))
ZEROS = make_trained(PENDULUM, np.zeros(4), np.zeros(3), np.ones(3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pendulum"
    assert train.main([*QUICK.split(), "--logdir", str(folder)]) == 0
    return folder


def test_a_policy_plays_in_a_plain_gymnasium_loop(run):
    policy = pes_rl.load_policy(run)
    env = gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    ended = False
    while not ended:
        action = policy(observation)
        assert env.action_space.contains(action)
        same, state = policy.predict(observation, deterministic=True)
        assert state is None
        np.testing.assert_array_equal(action, same)
        observation, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated


def test_many_observations_are_answered_at_once(run):
    policy = pes_rl.load_policy(run, "last")
    observations = np.random.default_rng(0).normal(size=(5, 3))
    actions = policy(observations)
    assert actions.shape == (5, 1)
    assert actions.dtype == np.float32
    for action, observation in zip(actions, observations, strict=True):
        np.testing.assert_allclose(action, policy(observation), rtol=1e-6)


WITHOUT_JAX = """
import json, sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "brax", "mujoco"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import pes_rl
policy = pes_rl.load_policy(sys.argv[1])
print(json.dumps(policy(json.loads(sys.argv[2])).tolist()))
"""


def test_a_policy_acts_where_jax_is_not_installed(run):
    observation = [0.3, -0.2, 4.0]
    command = [sys.executable, "-c", WITHOUT_JAX, str(run), json.dumps(observation)]
    shown = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert json.loads(shown.stdout) == pes_rl.load_policy(run)(observation).tolist()


def test_a_policy_normalises_observations_by_what_it_carries(run):
    policy, observation = pes_rl.load_policy(run, "last"), np.array([0.3, -0.2, 4.0])
    assert (np.abs(policy.mean) > 1e-3).all()
    assert (policy.std > 0.1).all()
    assert (policy.std != 1).all()
    seen = (observation - policy.mean) / policy.std
    expected = policy.policy.act(policy.theta.astype(np.float64), seen)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(policy(observation), expected, rtol=1e-6)


def test_files_of_format_1_are_read_and_later_ones_refused(run, tmp_path):
    policy = pes_rl.load_policy(run)
    with np.load(run / "policy" / "best.npz") as file:
        description = json.loads(str(file["policy"]))
    for version in (1, 3):
        text = json.dumps({**description, "format": version})
        arrays = {"theta": policy.theta, "policy": np.array(text)}
        if version > 1:
            arrays |= {"mean": policy.mean, "std": policy.std}
        np.savez(tmp_path / f"{version}.npz", **arrays)  # type: ignore
    read = pes_rl.load_policy(tmp_path / "1.npz")
    assert read.policy == policy.policy
    observation = np.array([0.3, -0.2, 4.0])
    expected = policy.policy.act(policy.theta.astype(np.float64), observation)
    np.testing.assert_allclose(read(observation), expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"has policy format 3, and .* reads 1 to 2"):
        pes_rl.load_policy(tmp_path / "3.npz")


def test_what_a_policy_cannot_do_is_said(run, tmp_path):
    policy = pes_rl.load_policy(run)
    with pytest.raises(ValueError, match=r"takes \(3,\) or \(N, 3\)"):
        policy(np.zeros(4))
    with pytest.raises(ValueError, match="deterministic=True"):
        policy.predict(np.zeros(3), deterministic=False)
    with pytest.raises(ValueError, match="use a run folder"):
        pes_rl.load_policy(tmp_path)


def test_the_command_prints_the_return_with_its_interval(run, capsys):
    assert evaluate.main([str(run), "--episodes", "4", "--which", "last"]) == 0
    line = capsys.readouterr().out
    pattern = (
        r"gym:Pendulum-v1: return (\S+) \+- (\S+) .* deviation (\S+), .* 200 steps"
    )
    mean, half_width, deviation = map(float, re.match(pattern, line).groups())  # type: ignore
    assert -2000 < mean < -100
    assert half_width == pytest.approx(1.96 * deviation / 2, abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "1"], "episodes=1 must be at least 2"),
        (["--env", "swimmer"], "has other observations or actions"),
        (["--env", "swimer"], "unknown environment 'swimer'"),
    ],
)
def test_what_cannot_be_evaluated_ends_in_one_line(run, capsys, arguments, message):
    assert evaluate.main([str(run), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_another_environment_needs_nothing_that_training_was_shared_by(
    run, tmp_path, capsys
):
    """Ray workers are for environments on the host, and this one is not."""
    copy = shutil.copytree(run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    config["settings"]["workers"] = 2
    (copy / "config.json").write_text(json.dumps(config))
    assert evaluate.main([str(copy), "--env", "jax:swimmer"]) == 2
    assert "has other observations or actions" in capsys.readouterr().err


def test_the_environment_is_made_with_the_arguments_given(run):
    def lengths(**changes):
        options = evaluate.EvaluateOptions(str(run), episodes=2, **changes)
        return evaluate.evaluate(options)[1].lengths

    assert list(lengths()) == [200, 200]
    assert list(lengths(env_kwargs='{"max_episode_steps": 7}')) == [7, 7]
    with pytest.raises(ValueError, match="env_kwargs='7' is no JSON object"):
        lengths(env_kwargs="7")


def test_a_folder_without_a_run_ends_in_one_line(tmp_path, capsys):
    assert evaluate.main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_another_family_gets_none_of_the_options_of_the_training_s(run, tmp_path):
    """Of the same family it gets them: they may be what the environments share."""
    spring = make_config("brax:inverted_pendulum", "pes", backend="spring")
    assert family_options(spring, "brax:ant")["backend"] == "spring"
    assert not make_environment(spring, "inverted_pendulum").on_device
    gravity: dict[str, Any] = {"env_kwargs": '{"g": 1.0}', "vectorization": "sync"}
    config = make_config("gym:Pendulum-v1", "es", **gravity)
    options = family_options(config, "gym:package:Other-v0")
    assert options == {**gravity, "backend": None}
    assert not make_environment(config, "inverted_pendulum").on_device
    other = shutil.copytree(run, tmp_path / "run")
    content = json.loads((other / "config.json").read_text())
    content["settings"] |= gravity
    (other / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="hopper has other observations"):
        evaluate.evaluate(evaluate.EvaluateOptions(str(other), env="hopper"))


def test_a_policy_file_alone_names_its_environment(run, tmp_path, capsys):
    assert evaluate.main([str(run), "--episodes", "2"]) == 0
    of_run = capsys.readouterr().out
    file = shutil.copy(run / "policy" / "best.npz", tmp_path / "mine.npz")
    assert evaluate.main([str(file), "--episodes", "2"]) == 0
    assert capsys.readouterr().out == of_run
    config = read_source(Path(file))
    assert (config.env, config.horizon) == ("gym:Pendulum-v1", None)


def test_a_policy_file_of_a_run_has_the_settings_of_the_run(run):
    assert read_source(run / "policy" / "last.npz") == read_source(run)


def test_a_policy_file_keeps_the_arguments_of_its_environment(tmp_path):
    arguments = {"env_kwargs": '{"g": 5.0}', "horizon": 30, "backend": None}
    named = tmp_path / "named.npz"
    save_policy(named, ZEROS, {"env": "gym:Pendulum-v1", **arguments})
    config = read_source(named)
    assert {name: getattr(config, name) for name in arguments} == arguments


def test_a_policy_file_that_names_no_environment_needs_one(tmp_path, capsys):
    save_policy(tmp_path / "old.npz", ZEROS)
    command = [str(tmp_path / "old.npz"), "--episodes", "2"]
    assert evaluate.main(command) == 2
    assert "name it by --env, or use the run folder" in capsys.readouterr().err
    assert evaluate.main([*command, "--env", "gym:Pendulum-v1"]) == 0


@pytest.mark.parametrize("settings", [{"env": 3}, {"env": "swimmer", "colour": 1}])
def test_a_bad_name_of_the_environment_in_a_file_is_said(tmp_path, capsys, settings):
    save_policy(tmp_path / "bad.npz", ZEROS, settings)
    assert evaluate.main([str(tmp_path / "bad.npz")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
