"""Runs with an own network and with a recurrent policy: trained, saved, resumed."""

import csv
import json
import sys

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import remembering
from gymnasium_counting import GymnasiumCounting
from quick_run import QUICK

import pes_rl
from pes_rl import evaluate
from pes_rl.assembly.assemble import Environments, assemble
from pes_rl.config.train_config import make_config
from pes_rl.envs import CarryingEnvironment, RecurrentHostRollout
from pes_rl.envs.mujoco.environment import MujocoEnvironment
from pes_rl.run_folder.trained_policy import (
    TrainedRecurrentPolicy,
)
from pes_rl.training import command as train
from pes_rl.training.trainer import Trainer

MODULE = """
import jax.numpy as jnp
import numpy as np


def network(observation_size, action_size):
    def init(key):
        return {"w": jnp.zeros((action_size, observation_size))}

    def apply(parameters, observation):
        return parameters["w"] @ observation

    return init, apply


def memory(observation_size, action_size):
    init, apply = network(observation_size, action_size)

    def with_carry(parameters, carry, observation):
        mean = 0.5 * carry + 0.5 * observation
        return mean, apply(parameters, mean)

    return init, with_carry, lambda: np.zeros(observation_size, np.float32)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A package of the user's, in a folder of Python's path."""
    (tmp_path / "my_policies.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_policies"
    sys.modules.pop("my_policies", None)


# Schedules refer to the budget, which two parts of a run do not share.
NO_SCHEDULES = ["--learning-rate-decay", "constant", "--sigma", "0.3"]
NO_SCHEDULES += ["--final-sigma", "0.3"]


def command(folder, *options):
    settings = [
        text
        for name, value in QUICK.items()
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    return train.main([*settings, *options, "--logdir", str(folder)])


def final_theta(folder, **options):
    return pes_rl.load_policy(folder, "last", **options).theta.tolist()


@pytest.mark.parametrize(
    "name", [pytest.param("network", marks=pytest.mark.slow), "memory"]
)
def test_a_network_of_a_package_is_trained_evaluated_and_resumed(
    module, name, tmp_path, capsys
):
    options = ["--policy", f"{module}:{name}", *NO_SCHEDULES]
    options += ["--normalize-observations"]
    assert command(tmp_path / "whole", *options) == 0
    assert command(tmp_path / "parts", *options, "--total-timesteps", "120") == 0
    resume = ["--resume", str(tmp_path / "parts"), "--total-timesteps", "240"]
    assert train.main(resume) == 0
    given = getattr(sys.modules[module], name)
    whole, parts = (
        final_theta(tmp_path / folder, policy=given) for folder in ("whole", "parts")
    )
    assert whole == parts
    assert np.any(whole)
    capsys.readouterr()
    assert evaluate.main([str(tmp_path / "whole"), "--episodes", "2"]) == 0
    assert "over 2 episodes" in capsys.readouterr().out
    with pytest.raises(ValueError, match=f"your own network {module}:{name}"):
        pes_rl.load_policy(tmp_path / "whole")


def test_a_linear_network_learns_what_the_built_in_one_does(module, tmp_path):
    """The same numbers but for rounding: one is NumPy, the other a jitted function."""
    options = {**QUICK, "bias": False, "env_kwargs": {}}
    thetas = []
    for name in ("linear", f"{module}:network"):
        folder = tmp_path / str(len(thetas))
        result = pes_rl.train("swimmer", logdir=folder, **{**options, "policy": name})
        thetas.append(result.theta)
    assert np.abs(thetas[0]).max() > 1e-3
    np.testing.assert_allclose(thetas[0], thetas[1], rtol=1e-3, atol=1e-5)


def test_a_network_from_python_trains_in_a_gymnasium_environment(tmp_path):
    def init(key):
        return {"w": jax.random.normal(key, (1, 2)), "b": np.zeros(1, np.float32)}

    def apply(parameters, observation):
        return parameters["w"] @ observation + parameters["b"]

    settings = {**QUICK, "horizon": 20, "truncation_length": 5, "eval_interval": 120}
    folder = tmp_path / "run"
    result = pes_rl.train(
        GymnasiumCounting, policy=(init, apply), logdir=folder, **settings
    )
    assert result.policy(np.zeros(2)).shape == (1,)
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["policy"] == "python:tuple"
    loaded = pes_rl.load_policy(folder, "last", policy=(init, apply))
    np.testing.assert_array_equal(loaded.theta, result.theta)
    assert train.main(["--resume", str(folder)]) == 2


@pytest.mark.parametrize(
    "agent",
    [
        ["pes", "--normalize-observations"],
        ["truncated-es"],
        pytest.param(["nres"], marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_a_resumed_gru_ends_as_the_uninterrupted_one(tmp_path, agent):
    """Cut off in the middle of every particle's episode, with all that it remembers."""
    options = ["--policy", "gru", "--hidden-sizes", "3", "--agent", *agent]
    options += [*NO_SCHEDULES, "--truncation-length", "7"]
    options += ["--num-pairs", "2"]
    assert command(tmp_path / "whole", *options) == 0
    assert command(tmp_path / "parts", *options, "--total-timesteps", "90") == 0
    resume = ["--resume", str(tmp_path / "parts"), "--total-timesteps", "240"]
    assert train.main(resume) == 0
    assert final_theta(tmp_path / "whole") == final_theta(tmp_path / "parts")
    assert np.any(final_theta(tmp_path / "whole"))


def test_a_saved_gru_plays_what_training_evaluated(tmp_path):
    folder = tmp_path / "run"
    options = ["--policy", "gru", "--hidden-sizes", "3", "--normalize-observations"]
    assert command(folder, *options) == 0
    trained = pes_rl.load_policy(folder, "last")
    with (folder / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    evaluations = sum(row["eval/mean_reward"] != "" for row in rows) + 1
    *_, key = jax.random.split(jax.random.key(0), 3)
    key = jax.random.fold_in(key, evaluations)
    assert isinstance(trained, TrainedRecurrentPolicy)
    environment = CarryingEnvironment(
        MujocoEnvironment("swimmer"), trained.initial_carry
    )
    rollout = RecurrentHostRollout(environment, trained.act, QUICK["horizon"])
    episodes = QUICK["final_eval_episodes"]
    start = rollout.reset(key, episodes, members=1)
    _, segment = rollout.unroll(
        start, jnp.asarray(trained.theta)[None], QUICK["horizon"]
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["final_return"] == float(-np.asarray(segment.loss.sum(0)).mean())


@pytest.mark.slow
def test_a_network_trains_on_a_device_environment_and_goes_on(tmp_path):
    """With a carry; the state of the run after a checkpoint is that of one run."""
    environments = Environments(counting.DeviceCounting(), counting.DeviceCounting())

    def init(key):
        return 0.5 * jax.random.normal(key, (2,))

    given = (init, remembering.act, remembering.initial_carry)

    def final(name, steps, at=None):
        settings = {**QUICK, "policy": "python:tuple", "total_timesteps": steps}
        settings |= {"horizon": 20, "truncation_length": 5, "learning_rate": 0.1}
        settings |= {"learning_rate_decay": "constant"}
        config = make_config("python:Counting", "pes", sigma=0.5, **settings)
        assembly = assemble(config, environments, given)
        return Trainer(config, tmp_path / name, at, assembly=assembly).run().theta

    whole = final("whole", 240)
    final("parts", 120)
    np.testing.assert_array_equal(whole, final("parts", 240, "newest"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--policy cnn",
            "unknown policy 'cnn'; use one of: linear, mlp, gru, package:N",
        ),
        ("--policy no_such_package:Net", "No module named 'no_such_package'; install"),
        ("--policy math:net", "math has no net"),
        ("--policy python:Net", "was passed as a Python object: pass it again"),
        ("--policy math:pi", "policy=3.14159"),
        ("--policy math:sin --activation relu", "no meaning for a math:sin policy"),
        (
            "--policy gru --activation relu",
            "no meaning for a gru policy; set policy to",
        ),
        ("--activation relu", "activation='relu' has no meaning for a linear policy"),
        (
            "--policy gru --hidden-sizes 0",
            "hidden_sizes=(0,) must be one layer or more",
        ),
        ("--policy math:sin --workers 2", "workers=2 run linear, mlp and gru policies"),
        (
            "--env unrolled:toy-regression --agent pes --activation relu",
            "activation='relu' has no meaning for unrolled:toy-regression",
        ),
    ],
)
def test_bad_input_ends_in_one_clear_line(capsys, tmp_path, options, message):
    status = train.main([*options.split(), "--logdir", str(tmp_path / "run")])
    assert status == 2
    errors = capsys.readouterr().err.strip().split("\n")
    assert len(errors) <= 2
    assert message in errors[0]
