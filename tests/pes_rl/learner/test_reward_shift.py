"""A reward shift that changes over the run: losses, true returns, resumed runs."""

import json
from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import ES, PES, TruncatedES
from pes_rl.assembly.assemble import assemble
from pes_rl.config.train_config import make_config
from pes_rl.envs import DeviceRollout
from pes_rl.envs.rollout.shifted import ShiftedRollout
from pes_rl.learner.learner import Learner
from pes_rl.learner.optimizer import OptimizerConfig
from pes_rl.learner.schedules import largest_value, linear, take_schedules
from pes_rl.run_folder.policy_files import load_policy
from pes_rl.training import command as train

THETA, SHIFTS = jnp.array([0.25, -0.5]), (0.0, 1.5, -0.25, 4.0)
OPTIONS: dict[str, Any] = {"horizon": 6, "diverged_loss": 2.5, "diverges_at": 3}


@pytest.mark.parametrize(
    ("kind", "driver"),
    [
        (PES, "host"),
        (TruncatedES, "host"),
        pytest.param(PES, "device", marks=pytest.mark.slow),
    ],
)
def test_estimates_are_shifted_and_counted_returns_are_true(driver, kind):
    """The shift changes within episodes; an update is as if it were constant."""
    estimator = kind(4, 2, 0.7)
    plain = counting.ROLLOUTS[driver](**OPTIONS)
    state = estimator.init(plain, THETA, jax.random.key(1))
    episodes = 0
    for update, shift in enumerate(SHIFTS):
        key = jax.random.key(50 + update)
        shifted = ShiftedRollout(plain, jnp.float32(shift))
        gradient, after, report = estimator.estimate(shifted, THETA, state, key)
        if shift == 1.5:
            constant = counting.ROLLOUTS[driver](**OPTIONS, reward_shift=shift)
            expected, _, other = estimator.estimate(constant, THETA, state, key)
            np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(report.particle_loss, other.particle_loss)
        _, state, true = estimator.estimate(plain, THETA, state, key)
        np.testing.assert_allclose(report.episode_loss, true.episode_loss, rtol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, after, state)
        episodes += int(report.episodes)
    assert episodes > 0


class Constant:
    """A loss of 1 in every step."""

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.int32(0)

    def step(self, theta: jax.Array, state: jax.Array) -> Any:
        del theta
        return state + 1, jnp.float32(1), jnp.array(False)


def test_the_shift_of_an_update_is_that_of_its_progress():
    """Ten steps an update of a budget of 40; episodes of 5 steps with a loss of 1."""
    learner = Learner(
        DeviceRollout(Constant(), horizon=5),
        ES(1, 0.1),
        OptimizerConfig("sgd", 0.5),
        total_timesteps=40,
        reward_shift=linear(2.0, 0.0),
    )
    start = learner.init(jnp.zeros(2), jax.random.key(0))
    state, reports = learner.run(start, 6)
    expected = [5 * (1 + shift) for shift in (2.0, 1.5, 1.0, 0.5, 0.0, 0.0)]
    np.testing.assert_allclose(reports.particle_loss, np.outer(expected, [1, 1]))
    np.testing.assert_allclose(reports.episode_loss, 10.0)
    assert learner.reward_shift(state) == 0.0


QUICK = (
    "--env hopper --agent nres --num-pairs 2 --truncation-length 10 --horizon 40 "
    "--total-timesteps 480 --eval-episodes 2 --final-eval-episodes 3 "
    "--eval-interval 160 --log-interval 2 --checkpoint-interval 160 "
    "--reward-shift 1 --final-reward-shift 0"
)


def test_a_resumed_run_ends_with_the_same_bits_and_evaluates_true_rewards(tmp_path):
    run = tmp_path / "run"
    assert train.main([*QUICK.split(), "--logdir", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    # Each step that Hopper stays up is worth about 1.
    assert summary["final_return"] > 5
    header, *rows = (run / "progress.csv").read_text().splitlines()
    column = header.split(",").index("train/reward_shift")
    shifts = [float(row.split(",")[column] or "nan") for row in rows]
    steps = [int(row.split(",")[0]) for row in rows]
    known = np.isfinite(shifts)
    np.testing.assert_allclose(
        np.array(shifts)[known],
        1 - np.minimum(np.array(steps)[known] / 480, 1),
        rtol=1e-5,
    )
    assert known.any()
    theta = load_policy(run, "last").theta
    checkpoint = min(int(path.name) for path in (run / "checkpoints").iterdir())
    assert train.main(["--resume", str(run / "checkpoints" / str(checkpoint))]) == 0
    np.testing.assert_array_equal(load_policy(run, "last").theta, theta)


def test_functions_of_either_sign_are_the_whole_schedule():
    settings, schedules = take_schedules({"reward_shift": lambda p: 1 - 2 * p})
    assert settings == {"reward_shift": 1.0, "final_reward_shift": None}
    assert list(schedules) == ["reward_shift"]
    with pytest.raises(ValueError, match="drop final_reward_shift"):
        take_schedules({"reward_shift": lambda p: p, "final_reward_shift": 1.0})
    with pytest.raises(ValueError, match="is inf; it must be finite"):
        largest_value("reward_shift", lambda p: 1 / p)


@pytest.mark.parametrize(
    ("env", "agent", "message"),
    [
        ("jax:swimmer", "random-search", "compares returns of different updates"),
        ("unrolled:toy-regression", "pes", "final_reward_shift=1.0 has no meaning"),
    ],
)
def test_where_a_schedule_means_nothing_it_is_refused(env, agent, message):
    with pytest.raises(ValueError, match=message):
        assemble(make_config(env, agent, final_reward_shift=1.0))
