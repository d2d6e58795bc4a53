"""Training from Python, and on a user's own environment as the manual has it."""

import json
import os
import re
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium_counting import GymnasiumCounting

import pes_rl
from pes_rl import check
from pes_rl.run_folder.policy_files import (
    load_policy,
)

ROOT = Path(__file__).parents[3]
QUICK: dict[str, Any] = {
    "truncation_length": 5,
    "total_timesteps": 80,
    "eval_episodes": 2,
    "final_eval_episodes": 2,
    "horizon": 20,
}


def counting_vector(count: int = 4) -> SyncVectorEnv:
    mode = AutoresetMode.SAME_STEP
    return SyncVectorEnv([GymnasiumCounting] * count, autoreset_mode=mode)


def test_a_name_a_constructor_and_a_vector_env_train_alike(tmp_path):
    """The same numbers however the environment is handed over."""
    gymnasium.register("PesRlCounting-v0", "gymnasium_counting:GymnasiumCounting")
    thetas = []
    for k, env in enumerate(
        ("gym:PesRlCounting-v0", GymnasiumCounting, counting_vector())
    ):
        result = pes_rl.train(
            env, num_pairs=2, seed=3, logdir=tmp_path / str(k), **QUICK
        )
        assert result.folder == tmp_path / str(k)
        assert result.policy(np.zeros(2)).shape == (1,)
        np.testing.assert_array_equal(result.policy.theta, result.theta)
        saved = load_policy(result.folder, "last")
        np.testing.assert_array_equal(saved.theta, result.theta)
        summary = json.loads((result.folder / "summary.json").read_text())
        assert summary == result.summary
        thetas.append(result.theta)
    del gymnasium.registry["PesRlCounting-v0"]
    np.testing.assert_array_equal(thetas[0], thetas[1])
    # Its idle steps count, and so it comes to the end of its budget sooner.
    assert np.isfinite(thetas[2]).all()


def test_steps_that_a_vector_env_drags_along_use_up_the_budget(tmp_path):
    result = pes_rl.train(counting_vector(), logdir=tmp_path / "run", **QUICK)
    # Every update steps all four simulations, waiting or not, until the last one waits.
    assert result.summary["total_timesteps"] % 4 == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["vectorization"] == "the given SyncVectorEnv"
    assert config["settings"]["env"] == "python:SyncVectorEnv"
    assert config["settings"]["num_pairs"] == 2


def test_an_agent_without_pairs_takes_a_vector_env_of_any_number(tmp_path):
    options = {k: v for k, v in QUICK.items() if k != "truncation_length"}
    result = pes_rl.train(
        counting_vector(3), "random-search", logdir=tmp_path / "run", **options
    )
    config = json.loads((result.folder / "config.json").read_text())
    assert config["settings"]["num_particles"] == 3


def test_the_folder_is_that_of_the_command_and_always_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [
        pes_rl.train(partial(GymnasiumCounting, None), num_pairs=1, **QUICK).folder
        for _ in range(2)
    ]
    assert folders[0].parent == folders[1].parent == Path("runs/python-partial")
    assert folders[0] != folders[1]


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("swimer", {}, "unknown environment 'swimer'"),
        ("swimmer", {"sigmaa": 1.0}, "unknown option 'sigmaa'; use one of: sigma"),
        ("swimmer", {"vectorization": "async"}, "is for gym:ID; drop it for swimmer"),
        ("python:MyEnv", {}, "was passed as a Python object"),
        (GymnasiumCounting, {"horizon": None}, "set horizon"),
        (counting_vector(3), {}, "make one of 4"),
        (counting_vector(), {"num_pairs": 3}, "use num_pairs=2"),
        (
            gymnasium.wrappers.vector.RecordEpisodeStatistics(counting_vector()),
            {},
            "set eval_env to a name or a constructor",
        ),
        (GymnasiumCounting, {"eval_env": "swimmer"}, "other observations or actions"),
    ],
)
def test_bad_input_is_refused_at_once(tmp_path, env, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        pes_rl.train(env, logdir=tmp_path / "run", **{**QUICK, **options})


def test_a_wrapped_vector_env_trains_with_an_environment_for_evaluation(tmp_path):
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(counting_vector())
    result = pes_rl.train(
        wrapped, eval_env=GymnasiumCounting, logdir=tmp_path / "run", **QUICK
    )
    assert result.summary["total_timesteps"] >= QUICK["total_timesteps"]


@pytest.mark.parametrize(
    "imports",
    [
        "import pes_rl",
        "import pes_rl.training.command, pes_rl.train; from pes_rl import train; "
        "assert train is pes_rl.train",
    ],
)
def test_the_name_is_the_function_after_any_order_of_imports(imports):
    code = f"{imports}; assert pes_rl.train.__module__ == 'pes_rl.training.api'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def code_of(title: str, page: str = "own_environment.md") -> str:
    """The block of code after a comment in a page of the manual."""
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"<!-- {title} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_manual_s_environment_trains_from_the_command_line_and_python(
    tmp_path, monkeypatch
):
    """The first training is a process of its own; the rest is done in this one."""
    (tmp_path / "my_module.py").write_text(code_of("own environment"))
    assert len(code_of("own environment").splitlines()) <= 33
    (tmp_path / "use.py").write_text(code_of("own environment, Python"))
    checking, training = code_of("own environment, command line").splitlines()
    shown = subprocess.run(
        [sys.executable, *training.split()[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    program = "python -m pes_rl.check "
    assert checking.startswith(program)
    assert check.main(checking.removeprefix(program).split()) == 0
    runpy.run_path("use.py")
    del gymnasium.registry["MyEnv-v0"], sys.modules["my_module"]
    summaries = [
        json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/summary.json")
    ]
    returns = [summary["final_return"] for summary in summaries]
    assert len(returns) == 2
    assert returns[0] == returns[1] > 150  # below 200; the first policy has 27.5


def test_the_manual_s_callback_ends_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code_of("short callback", "callbacks.md"), names)
    summary = names["result"].summary
    assert summary["ended_by"] == "good enough"
    assert summary["best_return"] > 100
    assert summary["total_timesteps"] < 200_000
