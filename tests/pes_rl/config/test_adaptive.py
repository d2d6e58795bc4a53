"""Defaults fit what was given; what was given stays."""

import json
from dataclasses import replace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import pytest

import pes_rl
from pes_rl.agents import AGENT_NAMES
from pes_rl.assembly.assemble import assemble
from pes_rl.assembly.factories import make_estimator
from pes_rl.config.adaptive import budget_warning, fit_defaults, known_horizon
from pes_rl.config.defaults import DEFAULTS, task_defaults
from pes_rl.config.train_config import (
    TrainConfig,
    make_config,
    make_fitted_config,
)
from pes_rl.run_folder.reader import read_config
from pes_rl.studies.study import make_study
from pes_rl.studies.sweep_space import read_space
from pes_rl.training import command


def length_for(horizon: int, **given: Any) -> int | None:
    return make_config("gym:Any-v0", "pes", horizon=horizon, **given).truncation_length


@pytest.mark.parametrize("horizon", [1, 7, 50, 99, 101, 200, 250, 999, 1000, 1600])
def test_unrolls_cut_an_episode_into_nearly_equal_parts(horizon):
    length = length_for(horizon)
    assert length is not None and 1 <= length <= min(horizon, 100)
    unrolls = -(-horizon // length)
    assert unrolls == -(-horizon // 100)  # as many as by default
    assert 0 <= unrolls * length - horizon < unrolls


@pytest.mark.parametrize(("horizon", "length"), [(50, 50), (250, 84), (1000, 100)])
def test_a_given_truncation_length_stays(horizon, length):
    assert length_for(horizon) == length
    assert length_for(horizon, truncation_length=30) == 30


def test_the_horizon_of_a_registered_environment_is_known_without_making_it():
    for env, limit in (("Reacher-v5", 50), ("Pendulum-v1", 200)):
        spec: Any = gymnasium.spec(env)
        assert spec.max_episode_steps == limit
        assert make_config(f"gym:{env}", "nres").truncation_length == min(limit, 100)
    assert (
        known_horizon("gym:Hopper-v5", {"env_kwargs": '{"max_episode_steps": 9}'}) == 9
    )
    assert known_horizon("gym:Hopper-v5", {"horizon": 20}) == 20
    # Gymnasium makes the highest version of a name that has none.
    assert known_horizon("gym:Pendulum", {}) == 200


@pytest.mark.parametrize("env", ["gym:No-v0", "gym:no_package:No-v0", "jax:swimmer"])
def test_an_unknown_horizon_leaves_the_defaults(env):
    assert known_horizon(env, {"env_kwargs": "no JSON"}) is None
    assert make_config(env, "pes").truncation_length == 100


def test_the_time_limit_of_an_environment_that_has_been_made():
    config = make_config("python:Mine", "pes", env_horizon=40)
    assert config.truncation_length == 40 and config.horizon is None


def own(**options: Any) -> Any:
    return make_fitted_config("jax:own_jax:Walk", "pes", **options)


def test_an_own_environment_is_asked_for_its_time_limit():
    """`Walk` has 20 steps, or what its argument says."""
    assert make_config("jax:own_jax:Walk", "pes").truncation_length == 100
    assert own().truncation_length == 20
    assert own(env_kwargs='{"horizon": 150}').truncation_length == 75
    assert own(env_kwargs='{"horizon": null}').truncation_length == 100


@pytest.mark.parametrize(
    "given",
    [
        {"truncation_length": 30},
        {"horizon": 250},
        {"agent": "es"},
        {"env": "swimmer"},
        {"env": "jax:swimmer"},
        {"env": "brax:ant"},
        {"env": "gym:Hopper-v5"},
    ],
)
def test_nothing_is_asked_where_no_default_depends_on_it(given):
    options = {"env": "jax:own_jax:Walk", "agent": "pes", **given}
    fitted = make_fitted_config(ask=lambda *_: pytest.fail("asked"), **options)
    assert fitted == make_config(**options)


@pytest.mark.parametrize("env", ["jax:no_package:Walk", "jax:own_jax:failing"])
def test_an_environment_that_fails_to_answer_leaves_the_defaults(env):
    assert make_fitted_config(env, "pes").truncation_length == 100


@pytest.mark.parametrize("limit", [0, -5, 2.5, "20"])
def test_a_bad_time_limit_leaves_the_defaults(limit):
    config = own(env_kwargs=json.dumps({"horizon": limit}))
    assert config.truncation_length == 100


def test_command_and_function_train_with_the_time_limit_of_an_own_environment(tmp_path):
    quick: dict[str, Any] = {
        "num_pairs": 2,
        "total_timesteps": 1,
        "final_eval_episodes": 1,
    }
    options = [f"--{name}={value}" for name, value in quick.items()]
    env = ["--env", "jax:own_jax:Walk", "--agent", "pes"]
    assert command.main([*env, *options, "--logdir", str(tmp_path / "command")]) == 0
    function: Any = tmp_path / "function"
    pes_rl.train("jax:own_jax:Walk", "pes", logdir=function, **quick)
    for run in (tmp_path / "command", function):
        assert read_config(run).truncation_length == 20


def test_studies_and_sweeps_ask_in_a_process_of_their_own(tmp_path):
    study = make_study(("jax:own_jax:Walk",), ("pes", "es"), (0, 1), {})
    assert [run.config.truncation_length for run in study.runs] == [20, 20, None, None]
    file = tmp_path / "space.toml"
    file.write_text('env = "jax:own_jax:Walk"\nagent = "pes"\n[search]\nsigma = [0.1]')
    space = read_space(file)
    assert space.config(space.example(), 0).truncation_length == 20


def test_the_noise_period_is_as_many_unrolls_as_by_default():
    usual = task_defaults("swimmer", "gpes")
    assert (usual["noise_period"], usual["truncation_length"]) == (250, 50)
    for options, expected in (
        ({"truncation_length": 30}, (150, 30)),
        ({"noise_period": 150}, (150, 50)),
        ({"noise_period": 120, "truncation_length": 24}, (120, 24)),
        ({"horizon": 20}, (100, 20)),
    ):
        config = make_config("swimmer", "gpes", **options)
        assert (config.noise_period, config.truncation_length) == expected


def test_top_pairs_are_within_the_pairs():
    assert make_config("swimmer", "ars", num_pairs=4).num_top_pairs == 4
    assert make_config("swimmer", "ars", num_pairs=60).num_top_pairs == 10


@pytest.mark.parametrize("budget", [1, 999, 20_000, 200_000])
def test_a_short_budget_has_its_evaluations_rows_and_checkpoints(budget):
    config = make_config("swimmer", "pes", total_timesteps=budget)
    assert config.eval_interval == min(25_000, max(budget // 10, 1))
    assert config.checkpoint_interval == min(100_000, max(budget // 4, 1))
    steps = 2 * 20 * 100
    assert config.log_interval == min(5, max(config.eval_interval // steps, 1))
    given = {"eval_interval": 7, "log_interval": 8, "checkpoint_interval": 9}
    config = make_config("swimmer", "pes", total_timesteps=budget, **given)
    assert {name: getattr(config, name) for name in given} == given


@pytest.mark.parametrize("agent", ["pes", "nres", "es", "truncated-es", "ars", "gpes"])
def test_with_its_own_budget_swimmer_has_its_own_settings(agent):
    """To the bit the run of before: no setting changes."""
    config = make_config("swimmer", agent)
    plain = TrainConfig(env="swimmer", agent=agent, **task_defaults("swimmer", agent))
    assert config == plain and config.total_timesteps == 500_000


def test_every_task_is_evaluated_ten_times_with_its_defaults():
    for env in DEFAULTS:
        for agent in AGENT_NAMES:
            if agent in {**DEFAULTS[""], **DEFAULTS[env]}:
                settings = fit_defaults(task_defaults(env, agent), {}, None)
                interval = settings.get("eval_interval", 25_000)
                assert interval * 10 <= settings.get("total_timesteps", 500_000)


@pytest.mark.parametrize(
    "name", ["num_pairs", "truncation_length", "total_timesteps", "eval_interval"]
)
@pytest.mark.parametrize("value", ["8", 0, -3, 2.5, True, 10**400])
def test_bad_values_are_left_to_the_checks(name, value):
    with pytest.raises(ValueError, match=name):
        make_estimator(make_config("swimmer", "gpes", **{name: value}))


def test_the_command_line_has_the_same_settings_as_python():
    words = "--env gym:Reacher-v5 --agent gpes --total-timesteps 9000 --num-pairs 3"
    config = command.parse([str(word) for word in words.split()]).config
    options = {"total_timesteps": 9000, "num_pairs": 3}
    assert config == make_config("gym:Reacher-v5", "gpes", **options)
    assert (config.truncation_length, config.eval_interval) == (50, 900)


@pytest.mark.parametrize(
    "option", ["--truncation-length 100", "--truncation_length=100"]
)
def test_a_default_that_was_typed_was_given(option):
    config = command.parse(
        ["--env", "swimmer", "--horizon", "40", *option.split()]
    ).config
    assert config.truncation_length == 100
    config = command.parse(["--env", "swimmer", "--horizon", "40"]).config
    assert config.truncation_length == 40


def test_a_budget_below_one_update_has_a_warning():
    config = make_config("unrolled:lr-schedule", "pes", total_timesteps=2000)
    warning = budget_warning(config, 10_000)
    assert warning is not None and "less than one update" in warning
    assert "10,000" in warning and "2,000" in warning
    assert budget_warning(config, 2000) is None  # Its rate and sigma are constant.


def test_schedules_that_end_within_few_updates_have_a_warning():
    config = make_config("halfcheetah", "pes", total_timesteps=10_000)
    few = budget_warning(config, 1000)
    assert few is not None and "some 10 updates" in few and "20,000" in few
    assert budget_warning(config, 500) is None


def test_a_budget_below_the_schedules_least_has_a_warning():
    options = {"total_timesteps": 10_000, "min_schedule_timesteps": 40_000}
    config = make_config("swimmer", "pes", **options)
    warning = budget_warning(config, 100)
    assert warning is not None and "ends at 25% of the schedules" in warning
    with pytest.raises(ValueError, match="min_schedule_timesteps=-1 must be 0 or more"):
        make_config("swimmer", "pes", min_schedule_timesteps=-1)


@pytest.mark.parametrize(("least", "progress"), [(0, 1.0), (400, 0.25), (50, 1.0)])
def test_schedules_go_over_the_budget_or_the_least(least, progress):
    options = {"num_pairs": 1, "truncation_length": 50, "total_timesteps": 100}
    config = make_config("jax:swimmer", "pes", min_schedule_timesteps=least, **options)
    parts = assemble(config)
    key = jax.random.key(0)
    state = parts.learner.init(parts.init_theta(key), key)
    state = replace(state, steps=jnp.array([100, 0], jnp.uint32))
    assert parts.learner.progress(state) == progress
    sigma = 0.3 * 0.2**progress
    assert parts.learner.sigma(state) == pytest.approx(sigma)
    assert parts.learner.learning_rate(state) == pytest.approx(0.1 * (1 - progress))
