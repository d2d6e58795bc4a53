"""Unrolled problems from the command line: a run, its folder, and what is refused."""

import csv
import json
import math
from typing import Any

import jax
import numpy as np
import pytest

from pes_rl import evaluate
from pes_rl.assembly.assemble import assemble
from pes_rl.config.defaults import DEFAULTS
from pes_rl.config.train_config import make_config
from pes_rl.envs.names import UNROLLED_NAMES
from pes_rl.envs.registry import make
from pes_rl.envs.unrolled import PROBLEMS
from pes_rl.envs.unrolled.lr_schedule import LearningRateSchedule
from pes_rl.envs.unrolled.mlp_hyperparameters import MLPHyperparameters
from pes_rl.run_folder.policy_files import (
    load_parameters,
)
from pes_rl.training import command as train_command

TOY = "--env unrolled:toy-regression --horizon 20 --num-pairs 2 --total-timesteps 240"
TOY += " --eval-interval 80 --log-interval 2"


def test_the_registry_names_the_problems():
    assert set(UNROLLED_NAMES) == set(PROBLEMS)
    assert {f"unrolled:{name}" for name in PROBLEMS} <= set(DEFAULTS)


def test_one_agent_s_own_defaults_are_not_the_others():
    """Published are sigma 0.3, and 1 for truncated ES alone; UORO's rate is a tenth."""
    sigma = {
        agent: settings["sigma"]
        for agent, settings in DEFAULTS["unrolled:toy-regression"].items()
        if "sigma" in settings
    }
    assert sigma.pop("truncated-es") == 1.0
    assert set(sigma.values()) == {0.3}
    rates = DEFAULTS["unrolled:influence-balancing"]
    assert rates["uoro"]["learning_rate"] == 1e-5
    assert rates["rtrl"]["learning_rate"] == 1e-4


@pytest.mark.parametrize("agent", ["pes", "nres", "es", "truncated-es"])
def test_a_run_leaves_its_parameters(tmp_path, capsys, agent):
    folder = tmp_path / "run"
    arguments = [*TOY.split(), "--agent", agent, "--logdir", str(folder)]
    assert train_command.main(arguments) == 0
    found = load_parameters(folder, "last")
    assert found.names == PROBLEMS["toy-regression"]().parameter_names
    assert found.theta.shape == (2,)
    assert (found.theta != -4).all()
    summary = json.loads((folder / "summary.json").read_text())
    assert evaluate.main([str(folder), "--which", "last", "--episodes", "2"]) == 0
    assert f"return {summary['final_return']:.5g}" in capsys.readouterr().out
    with (folder / "progress.csv").open() as file:
        first = next(csv.DictReader(file))
    # x1 goes from 1 to 100 at 0.25 exp(-4) a step, and has hardly begun.
    assert float(first["eval/mean_reward"]) == pytest.approx(-25 * 20, rel=0.02)


def test_an_endless_problem_is_evaluated_by_its_last_loss():
    parts = assemble(make_config("unrolled:influence-balancing", "pes"))
    assert parts.horizon == 500
    theta = parts.init_theta(jax.random.key(0))
    evaluation = parts.evaluate(theta, None, jax.random.key(1))
    np.testing.assert_allclose(evaluation.returns, -8.0, rtol=1e-3)
    assert parts.describe(theta, None).theta == np.float32(0.5)


def test_options_reach_the_problem():
    options = {"hidden_sizes": [5], "horizon": 7}
    problem: Any = make("unrolled:lr-schedule", env_kwargs=options)
    assert problem == LearningRateSchedule(hidden_sizes=(5,), horizon=7)
    assert problem.diverged_loss == pytest.approx(7 * math.log(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--env unrolled:toy", "unknown environment 'unrolled:toy'; use one of: unr"),
        ('--env-kwargs {"hrizon":3}', "'hrizon'; use one of: horizon"),
        ('--env-kwargs {"horizon":0}', "horizon=0 must be a whole number of at"),
        (
            "--horizon 5 --truncation-length 10",
            "truncation_length=10 is longer than the horizon of 5",
        ),
        ("--policy mlp", "policy='mlp' has no meaning for unrolled:toy-regression"),
        ("--hidden-sizes 4", "hidden_sizes=(4,) has no meaning for unrolled:toy-"),
        ("--no-bias", "bias=False has no meaning for unrolled:toy-regression"),
        ("--reward-shift 1", "reward_shift=1.0 has no meaning"),
        ("--normalize-observations", "normalize_observations=True has no meaning"),
        ("--backend spring", "backend='spring' is for Brax"),
        ("--adam-b1 1", "adam_b1=1.0 must be at least 0 and below 1"),
        ("--env unrolled:influence-balancing --agent es", "set a horizon"),
        (
            '--env unrolled:lr-schedule --env-kwargs {"objective":"speed"}',
            "objective='speed' must be one of: training-loss",
        ),
        (
            '--env unrolled:lr-schedule --env-kwargs {"data":"cifar-10"}',
            "cifar-10 is not downloaded; set data_folder",
        ),
    ],
)
def test_bad_input_ends_in_one_clear_line(capsys, tmp_path, arguments, message):
    given = [*arguments.split(), "--logdir", str(tmp_path / "run")]
    if "--env" not in given:
        given = ["--env", "unrolled:toy-regression", *given]
    assert train_command.main(given) == 2
    errors = capsys.readouterr().err.strip().split("\n")
    assert len(errors) == 1
    assert message in errors[0]


def test_a_folder_without_parameters_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no parameters"):
        load_parameters(tmp_path)


def test_random_search_draws_from_the_bounds_of_the_problem():
    config = make_config(
        "unrolled:mlp-hyperparameters",
        "random-search",
        env_kwargs='{"hidden_units": 4, "batch_size": 2, "horizon": 3}',
        num_particles=64,
    )
    assembly = assemble(config)
    key = jax.random.key(0)
    first = assembly.init_theta(key)
    state, _ = assembly.learner.run(assembly.learner.init(first, key), 1)
    low, high = MLPHyperparameters(hidden_units=4).search_bounds
    best = np.asarray(state.estimator.best)
    assert ((low <= best) & (best <= high)).all()
    assert np.abs(best - first).max() > 3  # the radius of the other problems


def test_random_search_of_a_problem_without_bounds_needs_a_radius():
    config = make_config("unrolled:toy-regression", "random-search", search_radius=None)
    with pytest.raises(ValueError, match="needs a search_radius"):
        assemble(config)
