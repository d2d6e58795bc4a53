"""The training command, from its arguments to the folder that it leaves."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import AGENTS
from pes_rl.assembly.factories import make_estimator
from pes_rl.config.defaults import DEFAULTS
from pes_rl.config.train_config import make_config
from pes_rl.envs import HostRollout
from pes_rl.envs.mujoco.environment import MujocoEnvironment
from pes_rl.envs.registry import make
from pes_rl.run_folder.policy_files import (
    load_policy,
)
from pes_rl.training import command as train

ROOT = Path(__file__).parents[2]
QUICK = (
    "--total-timesteps 480 --horizon 40 "
    "--eval-episodes 2 --final-eval-episodes 3 --eval-interval 160 --log-interval 2 "
    "--checkpoint-interval 160"
)


OPTIONS = {
    "pes": "--env swimmer --num-pairs 2 --truncation-length 10",
    "gpes": "--env swimmer --num-pairs 2 --truncation-length 10 --noise-period 20",
    "nres": "--env swimmer --num-pairs 2 --truncation-length 10",
    "es": "--env swimmer --num-pairs 2",
    "truncated-es": "--env swimmer --num-pairs 2 --truncation-length 10",
    "ars": "--env swimmer --num-pairs 2 --num-top-pairs 1",
    "random-search": "--env swimmer --num-particles 4",
    "rtrl": "--env jax:swimmer --num-particles 4 --truncation-length 10",
}
"""Some agents take every kind of option; the others are of the same kinds."""


def run(folder, *more):
    agent = more[more.index("--agent") + 1] if "--agent" in more else "pes"
    options = [*QUICK.split(), *OPTIONS[agent].split()]
    return train.main([*options, *more, "--logdir", str(folder)])


def rows(folder):
    with (folder / "progress.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of runs that are only read, by their further options."""
    made = {}

    def train_once(*more):
        if more not in made:
            made[more] = tmp_path_factory.mktemp("trained") / "run"
            assert run(made[more], *more) == 0
        return made[more]

    return train_once


@pytest.mark.parametrize("env", [*DEFAULTS, "hopper"])
def test_every_agent_has_defaults_that_make_it(env):
    problem: Any = make(env) if env.startswith("unrolled:") else None
    bounds = problem and problem.search_bounds
    for agent, kind in AGENTS.items():
        estimator = make_estimator(make_config(env or "ant", agent), bounds)
        assert isinstance(estimator, kind)


@pytest.mark.parametrize(
    "agent",
    [a if a != "rtrl" else pytest.param(a, marks=pytest.mark.slow) for a in OPTIONS],
)
def test_a_run_leaves_a_whole_folder(trained, agent):
    folder = trained("--agent", agent)
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) >= {
        "env",
        "agent",
        "seed",
        "total_timesteps",
        "wall_seconds",
        "steps_per_second",
        "final_return",
        "final_return_std",
        "best_return",
        "threshold",
        "timesteps_to_threshold",
    }
    assert summary["total_timesteps"] >= 480
    assert summary["best_return"] >= summary["final_return"]
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["agent"] == agent
    assert "jax" in config["versions"]
    assert list(folder.glob("events.out.tfevents.*"))
    assert list((folder / "checkpoints").iterdir())
    log = rows(folder)
    steps = [int(row["time/total_timesteps"]) for row in log]
    assert steps == sorted(steps)
    assert steps[-1] == summary["total_timesteps"]
    assert all(np.isfinite(float(row["pes/gradient_norm"])) for row in log[1:])
    last = load_policy(folder, "last")
    assert last.theta.shape == (last.policy.num_parameters,)


def test_the_final_evaluation_can_be_in_another_environment(tmp_path, capsys):
    """Trained in closed form, measured on MuJoCo itself; with other spaces, refused."""
    options = ["--env", "jax:swimmer", "--final-eval-env"]
    assert run(tmp_path / "run", *options, "swimmer") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    trained = load_policy(tmp_path / "run", "last")
    native = HostRollout(MujocoEnvironment("swimmer"), trained.policy.act, 40)
    start = native.reset(jax.random.key(0), 50, members=1)
    _, segment = native.unroll(start, jnp.tile(trained.theta, (50, 1)), 40)
    returns = -np.asarray(segment.loss).sum(0)
    # Three episodes of the summary beside fifty others.
    assert abs(summary["final_return"] - returns.mean()) < 4 * returns.std()
    assert run(tmp_path / "other", *options, "brax:fast") == 2
    assert "has other observations or actions" in capsys.readouterr().err


def test_a_reward_shift_changes_the_training_and_not_what_is_reported(trained):
    """An episode of Swimmer is as long as ever, so nothing changes but rounding."""
    plain, shifted = (
        [float(row["rollout/ep_rew_mean"] or "nan") for row in rows(trained(*options))]
        for options in (("--agent", "pes"), ("--agent", "pes", "--reward-shift", "2"))
    )
    assert np.isfinite(plain).any()
    np.testing.assert_allclose(plain, shifted, atol=1e-3)


def test_any_gymnasium_environment_trains_and_goes_on(tmp_path, capsys):
    """Its states are not saved, so a resumed run begins new episodes."""
    options = ["--env", "gym:Pendulum-v1", "--num-pairs", "1"]
    assert run(tmp_path / "run", *options, "--total-timesteps", "240") == 0
    again = ["--resume", str(tmp_path / "run"), "--total-timesteps", "480"]
    assert train.main(again) == 0
    steps = [int(row["time/total_timesteps"]) for row in rows(tmp_path / "run")]
    assert steps == sorted(steps)
    assert steps[-1] == 480
    refused = run(tmp_path / "no", "--env", "gym:spaces_counting:TextActions-v0")
    assert refused == 2
    assert "wrappers.TransformAction" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_run_at_any_number_of_threads(trained):
    outcomes = []
    for threads in ("1", "2", "8"):
        folder = trained("--normalize-observations", "--num-threads", threads)
        theta = load_policy(folder, "last").theta
        log = rows(folder)
        for row in log:
            del row["time/time_elapsed"], row["time/fps"]
        outcomes.append((theta.tolist(), log))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    options = ("--normalize-observations", "--num-threads", "1", "--seed", "1")
    other = load_policy(trained(*options), "last")
    assert other.theta.tolist() != outcomes[0][0]


def test_the_saved_policy_is_the_one_that_training_evaluated(trained):
    """Its normaliser included: it plays the very episodes of the final evaluation."""
    folder = trained("--normalize-observations", "--num-threads", "1")
    last = load_policy(folder, "last")
    assert (last.std != 1).all()
    *_, key = jax.random.split(jax.random.key(0), 3)
    evaluations = sum(row["eval/mean_reward"] != "" for row in rows(folder)) + 1
    key = jax.random.fold_in(key, evaluations)
    rollout = HostRollout(MujocoEnvironment("swimmer"), last.act, 40)
    start = rollout.reset(key, 3, members=1)
    _, segment = rollout.unroll(start, jnp.tile(last.theta, (3, 1)), 40)
    returns = -np.asarray(segment.loss.sum(0))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["final_return"] == float(returns.mean())


@pytest.mark.parametrize(
    "agent",
    [
        ["pes"],
        ["gpes"],
        ["nres"],
        ["pes", "--normalize-observations"],
        ["pes", "--shortest-horizon", "7"],
        ["pes", "--critic-discount", "0.9"],
    ],
    ids="-".join,
)
def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path, agent):
    # Cut off in the middle of every particle's episode. The budget is what schedules
    # refer to, so a run that knows a smaller one must not have any.
    options = ["--learning-rate-decay", "constant", "--sigma", "0.3"]
    options += ["--final-sigma", "0.3", "--agent", *agent]
    assert run(tmp_path / "whole", *options) == 0
    assert run(tmp_path / "parts", *options, "--total-timesteps", "240") == 0
    resume = ["--resume", str(tmp_path / "parts"), "--total-timesteps", "480"]
    assert train.main(resume) == 0
    whole, parts = (load_policy(tmp_path / name, "last") for name in ("whole", "parts"))
    for name in ("theta", "mean", "std"):
        assert getattr(whole, name).tolist() == getattr(parts, name).tolist()
    columns = ("time/total_timesteps", "train/theta_norm", "rollout/ep_rew_mean")
    logs = [
        [[row[c] for c in columns] for row in rows(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert logs[0][-1] == logs[1][-1]


def test_the_budget_counts_every_simulated_step(trained):
    for row in rows(trained("--agent", "truncated-es")):
        # Four particles and the mean unroll, ten steps each.
        assert int(row["time/total_timesteps"]) == 50 * int(row["time/iterations"])


def test_it_stops_at_the_threshold(tmp_path):
    folder = tmp_path / "run"
    assert run(folder, "--threshold", "-1000", "--stop-at-threshold") == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["timesteps_to_threshold"] == 0
    assert summary["total_timesteps"] < 480
    assert summary["ended_by"] == "the threshold"
    assert not summary["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--env swimer", "unknown environment 'swimer'; use one of: swimmer"),
        ("--agent pse", "unknown agent 'pse'; use one of: pes"),
        ("--env gym:spaces_counting:TextActions-v0", "actions are Text("),
        ("--truncation-length 0", "truncation_length=0 must be at least 1"),
        ("--truncation-length 1001", "longer than the horizon of 1000"),
        ("--num-pairs 0", "num_pairs=0 must be at least 1"),
        ("--sigma 0", "sigma=0.0 must be above 0"),
        ("--weight-decay -1", "weight_decay=-1.0 must be 0 or more"),
        ("--env-kwargs 3", "env_kwargs='3' is no JSON object"),
        ("--sigma nan", "sigma=nan must be a finite number"),
        ("--agent es --truncation-length 10", "has no meaning for es"),
        ("--agent truncated-es --orthogonal", "orthogonal=True has no meaning for"),
        ("--agent es --stagger", "stagger=True has no meaning for es; drop it, or use"),
        ("--agent pes --noise-period 200", "for pes; drop it, or use gpes"),
        ("--agent gpes --noise-period 120", "must be a multiple of truncation_length"),
        ("--agent pes --num-particles 4", "for pes; drop it, or use random-search, tb"),
        ("--agent bptt --sigma 0.1", "sigma=0.1 has no meaning for bptt; drop it, or"),
        ("--agent bptt --final-sigma 0.1", "final_sigma=0.1 has no meaning for bptt"),
        ("--agent rtrl --normalize-returns", "normalize_returns=True has no meaning"),
        ("--agent ars --normalize-returns", "no meaning for ars; drop it, or use pes"),
        ("--agent ars --num-top-pairs 99", "must be between 1 and num_pairs=10"),
        ("--agent random-search --learning-rate 0.1", "learning_rate=0.1 has no mean"),
        ("--agent pes --num-pairs None", "num_pairs is missing; pes needs one, 10 for"),
        ("--agent tbptt", "tbptt differentiates through the simulation, and this one"),
        ("--total-timesteps 0", "total_timesteps=0 must be above 0"),
        ("--num-threads -1", "num_threads=-1 must be 0"),
        ("--backend mjx", "backend='mjx' is for Brax"),
        ("--policy mlp --hidden-sizes 0", "hidden_sizes=(0,) must all be"),
        ("--hidden-sizes 8 8", "hidden_sizes=(8, 8) has no meaning for a linear pol"),
        ("--resume nowhere", "nowhere is not a run folder"),
    ],
)
def test_bad_input_ends_in_one_clear_line(capsys, tmp_path, arguments, message):
    status = train.main([*arguments.split(), "--logdir", str(tmp_path / "run")])
    assert status == 2
    errors = capsys.readouterr().err.strip().split("\n")
    assert len(errors) <= 2
    assert message in errors[0]


def test_a_log_folder_that_cannot_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "run") == 2
    assert "cannot be written" in capsys.readouterr().err
    (tmp_path / "run" / "config.json.unfinished").mkdir(parents=True)
    assert run(tmp_path / "run") == 2
    assert "cannot be written (Is a directory)" in capsys.readouterr().err


def test_a_folder_with_another_run_is_not_overwritten(capsys, trained):
    assert run(trained("--agent", "pes")) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_help_shows_the_defaults_of_the_chosen_agent(capsys):
    with pytest.raises(SystemExit):
        train.main(["--env", "swimmer", "--agent", "es", "--help"])
    shown = capsys.readouterr().out
    assert "--truncation-length" in shown
    assert "Environment steps between two evaluations" in shown


def test_wall_time_is_the_run_s_own(tmp_path):
    begun = time.perf_counter()
    assert run(tmp_path / "run") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary["wall_seconds"] < time.perf_counter() - begun


def test_the_module_runs_as_a_command(tmp_path):
    options = f"{QUICK} --agent es {OPTIONS['es']}"
    command = [sys.executable, "-m", "pes_rl.train", *options.split()]
    shown = subprocess.run(
        [*command, "--logdir", str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "return" in shown.stdout
    assert "480/480" in shown.stdout
