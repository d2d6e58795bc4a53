"""Runs on own environments in JAX: by name and as objects, from every command."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from own_jax import Blind, Walk
from quick_run import QUICK

import pes_rl
from pes_rl import check, compare, evaluate, video
from pes_rl.config.train_config import make_config
from pes_rl.rendering.film import make_film
from pes_rl.run_folder.reader import read_curve
from pes_rl.training import command as train

NAME = "jax:own_jax:Walk"
KWARGS = '{"edge": 2.0, "noise": 0.25}'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with random steps and both kinds of ends, and checkpoints on its way."""
    folder = tmp_path_factory.mktemp("own") / "run"
    pes_rl.train(NAME, env_kwargs=KWARGS, logdir=folder, **QUICK)
    return folder


def test_a_resumed_run_ends_as_the_uninterrupted_one(run, tmp_path):
    """To the bit, with a typed random key in the environment's state."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    steps = sorted(int(path.name) for path in (copy / "checkpoints").glob("[0-9]*"))
    assert len(steps) == 3
    assert train.main(["--resume", f"{copy}/checkpoints/{steps[0]}"]) == 0
    one, other = (pes_rl.load_policy(folder, "last") for folder in (run, copy))
    np.testing.assert_array_equal(one.theta, other.theta)
    columns = ("time/total_timesteps", "eval/mean_reward", "rollout/ep_rew_mean")
    curves = [read_curve(folder, columns) for folder in (run, copy)]
    assert len(curves[0]["eval/mean_reward"]) > 1
    for column in columns:
        np.testing.assert_array_equal(curves[0][column], curves[1][column])


def test_an_object_trains_as_its_name_does(run, tmp_path, capsys):
    folder = tmp_path / "run"
    result = pes_rl.train(Walk(edge=2.0, noise=0.25), logdir=folder, **QUICK)
    named = pes_rl.load_policy(run, "last")
    np.testing.assert_array_equal(result.theta, named.theta)
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert settings["env"] == "python:jax:own_jax:Walk"
    # The folder cannot know with which arguments the object was made.
    assert evaluate.main([str(folder)]) == 2
    assert "--env jax:own_jax:Walk names it if Walk()" in capsys.readouterr().err
    assert evaluate.main([str(folder), "--env", NAME, "--episodes", "3"]) == 0
    assert "over 3 episodes of 40 steps" in capsys.readouterr().out
    assert video.main([str(folder)]) == 2
    assert "name it as gym:ID or jax:PACKAGE:NAME" in capsys.readouterr().err


def test_the_run_is_evaluated_with_its_keyword_arguments(run, capsys):
    assert evaluate.main([str(run), "--episodes", "3"]) == 0
    assert NAME in capsys.readouterr().out


def test_a_film_shows_what_render_draws(run, tmp_path, capsys):
    film = tmp_path / "film.gif"
    assert video.main([str(run), "--steps", "4", "--out", str(film)]) == 0
    assert film.read_bytes().startswith(b"GIF")
    assert "return of the first 4 steps" in capsys.readouterr().out


def test_an_environment_that_draws_nothing_is_not_filmed():
    with pytest.raises(ValueError, match=r"it has no method render\(state\)"):
        make_film(make_config("jax:own_jax:Blind", "pes"), 64)


def test_an_environment_whose_drawing_fails_is_named(monkeypatch):
    monkeypatch.setattr("own_jax.Walk.render", lambda self, state: state["place"])
    with pytest.raises(ValueError, match=r"render\(state\) raised KeyError: 'place'"):
        make_film(make_config("jax:own_jax:Walk", "pes"), 64)


def test_check_reports_on_it(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    options = ["--num-pairs", "2", "--env-kwargs", '{"noise": 1.0}']
    assert check.main([NAME, *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for line in (
        "the members of a pair meet the same randomness │ yes",
        "observations and actions │ note │ 2 numbers; 1 from -1.0 to 1.0",
        "episodes begin in different states │ yes",
        "seconds to compile and play an episode │ note",
    ):
        assert line in printed


@pytest.mark.slow
def test_check_says_where_all_episodes_begin_alike(capsys):
    assert check.main(["jax:own_jax:Blind", "--num-pairs", "1"]) == 0
    assert "all first observations are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        (Walk, {}, "Walk is a class; pass an object of it, such as Walk()"),
        (object(), {}, "object has no observation_size"),
        (Walk(), {"env_kwargs": {"edge": 1}}, "object that is already made; drop it"),
        (Walk(), {"vectorization": "sync"}, "object that is already made; drop it"),
        (Walk(horizon=None), {"horizon": None}, "has no time limit; set horizon"),
        (Walk(), {"workers": 1}, "drop it for python:jax:own_jax:Walk"),
        (Walk(), {"eval_env": "swimmer"}, "other observations or actions"),
        ("jax:own_jax:broken", {}, "jax:own_jax:broken has no observation_size"),
    ],
)
def test_bad_input_is_refused_at_once(tmp_path, env, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        pes_rl.train(env, logdir=tmp_path / "run", **{**QUICK, **options})


def test_devices_are_for_it_too():
    assert make_config(NAME, "pes", devices=2).devices == 2
    assert make_config("python:jax:own_jax:Walk", "pes", devices=2).devices == 2


@pytest.mark.slow
def test_an_evaluation_environment_may_be_another_object(tmp_path):
    """Its episodes all begin at 0, so they are alike."""
    result = pes_rl.train(Walk(), eval_env=Blind(), logdir=tmp_path / "run", **QUICK)
    assert result.summary["final_return_std"] == 0


@pytest.mark.slow
def test_two_devices_end_as_one_does(run, tmp_path):
    arguments = [f"--{k.replace('_', '-')}={v}" for k, v in QUICK.items()]
    command = [sys.executable, "-m", "pes_rl.train", "--env", NAME, *arguments]
    helpers = os.path.dirname(sys.modules["own_jax"].__file__ or "")
    done = subprocess.run(
        [*command, "--env-kwargs", KWARGS, "--devices=2", f"--logdir={tmp_path / 'r'}"],
        env={
            **os.environ,
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} "
            "--xla_force_host_platform_device_count=2",
            "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{helpers}",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    one, two = (pes_rl.load_policy(f, "last").theta for f in (run, tmp_path / "r"))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_compare_trains_its_seeds_in_one_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    helpers = os.path.dirname(sys.modules["own_jax"].__file__ or "")
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{helpers}")
    settings = "\n".join(f"{name} = {value}" for name, value in QUICK.items())
    arm = "[[arm]]\nagent = 'pes'\nseeds = [0, 1]\n"
    (tmp_path / "study.toml").write_text(
        f"env = '{NAME}'\nenv_kwargs = '{KWARGS}'\n{settings}\n"
        f"{arm}name = 'together'\nvmap_seeds = true\n{arm}name = 'alone'\n"
    )
    assert compare.main(["study.toml", "--jobs", "1"]) == 0
    runs = {path.parent.name: path for path in tmp_path.rglob("summary.json")}
    for seed in (0, 1):
        one, other = (
            json.loads(runs[f"{how}-s{seed}"].read_text())["final_return"]
            for how in ("together", "alone")
        )
        assert one == pytest.approx(other, rel=1e-4)
