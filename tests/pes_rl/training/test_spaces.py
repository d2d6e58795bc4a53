"""Runs on discrete actions and structured observations, from training to the loop."""

import json
import shutil
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from spaces_counting import LENGTH, SpacesCounting
from worker_pools import LocalWorkerPool

import pes_rl
from pes_rl import check, compare, evaluate, video
from pes_rl.assembly import ray as assembly_ray
from pes_rl.assembly.factories import make_environment, make_policy, make_rollout
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs.ray.rollout import RayRollout
from pes_rl.run_folder.policy_files import (
    save_policy,
)
from pes_rl.training import command as train

NAME = "gym:spaces_counting:SpacesCounting-v0"
KWARGS = {"observation": "nested", "action": "multi-discrete"}
QUICK: dict[str, Any] = {
    "agent": "es",
    "num_pairs": 2,
    "total_timesteps": 80,
    "eval_interval": 40,
    "eval_episodes": 2,
    "final_eval_episodes": 2,
    "vectorization": "sync",
    "sample_actions": True,
    "normalize_observations": True,
    "env_kwargs": json.dumps(KWARGS),
}


def played(policy: Any, env: gymnasium.Env) -> float:
    """Return of an episode in a plain loop."""
    observation, _ = env.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        total += float(reward)
        ended = terminated or truncated
    return total


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "spaces"
    pes_rl.train(NAME, logdir=folder, **QUICK)
    return folder


def test_the_saved_policy_plays_what_evaluations_play(run):
    """All episodes are alike here, so a return is the same number everywhere."""
    env = SpacesCounting(**KWARGS)
    best, last = (pes_rl.load_policy(run, which) for which in ("best", "last"))
    summary = json.loads((run / "summary.json").read_text())
    assert played(last, env) == summary["final_return"]
    assert played(best, env) == summary["best_return"]
    options = evaluate.EvaluateOptions(str(run), "last", episodes=2)
    _, evaluation = evaluate.evaluate(options)
    assert evaluation.returns.tolist() == 2 * [summary["final_return"]]


def test_a_program_s_policies_are_those_of_its_own_environment(tmp_path):
    env = SpacesCounting(**KWARGS)
    options = {**QUICK, "env_kwargs": KWARGS, "horizon": 10}
    result = pes_rl.train(SpacesCounting, logdir=tmp_path / "run", **options)
    assert result.policy is not None
    loaded = pes_rl.load_policy(tmp_path / "run", "last")
    assert played(result.policy, env) == played(loaded, env)
    assert played(loaded, env) == result.summary["final_return"]


def test_a_run_is_resumed(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    resume = ["--resume", str(folder), "--total-timesteps", "160"]
    assert train.main(resume) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["total_timesteps"] >= 160
    again = pes_rl.load_policy(folder, "last")
    assert played(again, SpacesCounting(**KWARGS)) == summary["final_return"]


def test_it_is_filmed_whether_or_not_the_file_knows_the_spaces(run, tmp_path):
    films = []
    for name in ("with", "without"):
        if name == "without":  # as of an older version
            path = run / "policy" / "best.npz"
            policy = pes_rl.load_policy(path)
            save_policy(path, type(policy)(*list(vars(policy).values())[:4]))
        out = tmp_path / f"{name}.gif"
        films.append(video.film_run(video.VideoOptions(str(run), out=str(out)))[0])
        if name == "without":
            save_policy(path, policy)
    summary = json.loads((run / "summary.json").read_text())
    assert films == 2 * [[summary["best_return"]]]


def test_check_accepts_them(capsys):
    options = [NAME, "--env-kwargs", json.dumps(KWARGS), "--vectorization", "sync"]
    assert check.main(options) == 0, capsys.readouterr()


@pytest.mark.slow
def test_they_are_compared(tmp_path):
    kwargs = json.dumps(json.dumps(KWARGS))
    (tmp_path / "study.toml").write_text(
        f'title = "spaces"\nenv = "{NAME}"\nseeds = [0, 1]\ntotal_timesteps = 40\n'
        f"env_kwargs = {kwargs}\nnum_pairs = 2\neval_episodes = 2\n"
        'final_eval_episodes = 2\nvectorization = "sync"\n'
        '[[arm]]\nagent = "es"\n[[arm]]\nagent = "nres"\ntruncation_length = 2\n'
    )
    out = tmp_path / "out"
    assert compare.main([str(tmp_path / "study.toml"), "--out", str(out)]) == 0
    assert (out / "table.md").exists()


def test_an_environment_with_other_actions_does_not_fit_the_policy():
    """It has as many outputs: 5 choices in place of 2 and 3."""
    other = partial(SpacesCounting, "nested", "five")
    options = {**QUICK, "env_kwargs": {}, "horizon": 10}
    with pytest.raises(ValueError, match="other observations or actions than"):
        pes_rl.train(partial(SpacesCounting, **KWARGS), eval_env=other, **options)


def test_workers_sample_the_actions_of_one_process():
    config: TrainConfig = make_config(NAME, **QUICK)
    environment = make_environment(config, NAME, sample_actions=True)
    policy = make_policy(config, environment)
    build = partial(assembly_ray._make_worker_rollout, config, policy)
    shared = RayRollout(LocalWorkerPool(build, 2), 10, can_copy=False)
    alone = make_rollout(config, environment, policy)
    thetas = jax.random.normal(jax.random.key(1), (4, policy.num_parameters)) / 9
    losses = []
    for rollout in (shared, alone):
        particles = rollout.reset(jax.random.key(0), 2)
        for _ in range(2):
            particles, segment = rollout.unroll(particles, thetas, LENGTH + 2)
            losses.append(np.asarray(segment.loss))
    np.testing.assert_array_equal(losses[:2], losses[2:])
    assert len(np.unique(losses[0])) > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "options", "least"),
    [
        ("Acrobot-v1", {"total_timesteps": 60_000}, -100.0),
        # It reached 259 after 320,000 steps.
        ("LunarLander-v3", {"total_timesteps": 400_000, "learning_rate": 0.3}, 200.0),
    ],
)
def test_discrete_tasks_are_learned(env, options, least, tmp_path):
    if env.startswith("Lunar"):
        pytest.importorskip("Box2D")
    result = pes_rl.train(
        f"gym:{env}",
        "es",
        seed=1,
        num_pairs=8,
        normalize_observations=True,
        vectorization="sync",
        horizon=500,
        eval_interval=options["total_timesteps"] // 10,
        logdir=tmp_path / "run",
        **options,
    )
    assert result.summary["best_return"] > least


@pytest.mark.slow
def test_a_goal_environment_is_learned(tmp_path):
    """FetchReach's observation is a dictionary of three vectors."""
    robotics = pytest.importorskip("gymnasium_robotics")
    gymnasium.register_envs(robotics)
    result = pes_rl.train(
        "gym:gymnasium_robotics:FetchReachDense-v4",
        "es",
        seed=1,
        num_pairs=16,
        total_timesteps=200_000,
        normalize_observations=True,
        logdir=tmp_path / "run",
    )
    policy = pes_rl.load_policy(tmp_path / "run")
    env = gymnasium.make("FetchReachDense-v4")
    assert played(policy, env) > -5.0  # An arm that stays where it is: about -10.
    assert result.summary["best_return"] > -5.0
