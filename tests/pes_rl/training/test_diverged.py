"""Parameters that are not finite and evaluations that diverge never count."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_run import QUICK

from pes_rl.config.train_config import make_config
from pes_rl.learner.evaluation import Evaluation
from pes_rl.run_folder.policy_files import (
    load_policy,
)
from pes_rl.training import command
from pes_rl.training.callbacks import Callback
from pes_rl.training.counters import Counters
from pes_rl.training.trainer import Trainer


@pytest.mark.parametrize("env", ["swimmer", "jax:swimmer"])
def test_a_run_ends_with_its_last_finite_parameters(tmp_path, env, capsys):
    """A weight decay of 1e30 overflows in the second update."""
    options = {**QUICK, "weight_decay": 1e30}
    options |= {"threshold": -1e9, "learning_rate_decay": "constant"}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    folder = tmp_path / "run"
    assert command.main([*given, "--env", env, "--logdir", str(folder)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the parameters are no longer finite after 1 more updates" in error
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["interrupted"]
    assert summary["ended_by"] == "parameters that are not finite"
    assert summary["final_return"] is None
    assert summary["total_timesteps"] < 240
    for which in ("best", "last"):
        assert np.isfinite(load_policy(folder, which).theta).all()
    with (folder / "progress.csv").open(newline="") as file:
        norms = [row["train/theta_norm"] for row in csv.DictReader(file)]
    assert np.isfinite([float(norm) for norm in norms if norm]).all()


def diverged(returns, which):
    lengths = np.full(len(returns), 5)
    return Evaluation(np.array(returns), lengths, np.array(which))


def test_an_evaluation_with_a_diverged_episode_is_neither_last_nor_at_the_threshold():
    counters = Counters(timesteps=10)
    assert counters.add_evaluation(diverged([-5.0, 0.0], [False, True]), -4.0) is None
    assert counters.last_return is None
    assert counters.timesteps_to_threshold is None
    assert counters.add_evaluation(diverged([-3.0, -2.0], [False] * 2), -4.0) == -2.5
    assert counters.timesteps_to_threshold == 10


@pytest.mark.parametrize("env", ["swimmer", "jax:swimmer"])
def test_a_diverged_evaluation_becomes_neither_best_nor_final(tmp_path, env, capsys):
    """Parameters of 1e38, which are finite, make infinite actions."""

    class Break(Callback):
        def on_log(self, run, row):
            if run.timesteps == 240:
                state = trainer._state
                huge = jnp.full_like(state.theta, 1e38)
                trainer._state = jax.tree.map(lambda leaf: leaf, state)
                object.__setattr__(trainer._state, "theta", huge)

    options = {**QUICK, "clip_actions": False, "horizon": 40}
    config = make_config(env, "pes", **options)
    trainer = Trainer(config, tmp_path / "run", callbacks=[Break()])
    with np.errstate(all="ignore"):
        summary = trainer.run().summary
    assert summary["final_return"] is None
    assert summary["best_return"] == summary["best_return"]
    assert summary["last_return_timesteps"] == 240
    assert "2 of 2 episodes of the evaluation diverged" in capsys.readouterr().out
    assert np.abs(load_policy(tmp_path / "run").theta).max() < 1e6
