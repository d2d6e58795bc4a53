"""A policy taken home: loaded, played in a plain loop, evaluated by the command."""

import re

import gymnasium
import numpy as np
import pytest

import pes_rl
from pes_rl import evaluate, train_command as train

QUICK = (
    "--env gym:Pendulum-v1 --agent pes --total-timesteps 200 --num-pairs 1 "
    "--truncation-length 50 --final-eval-episodes 2 --eval-episodes 1 "
    "--eval-interval 100"
)


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


def test_a_folder_without_a_run_ends_in_one_line(tmp_path, capsys):
    assert evaluate.main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
