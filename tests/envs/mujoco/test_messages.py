"""MuJoCo's warnings: logged, not written to the terminal or the current folder."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

import logging

import mujoco
import numpy as np
import pytest

from pes_rl.envs.mujoco.environment import MujocoEnvironment
from pes_rl.envs.mujoco.messages import warnings_logged


def diverge(environment: MujocoEnvironment) -> np.ndarray:
    """Rewards of a step in which the first of four simulations diverges."""
    environment.allocate(4)
    environment.reset(np.arange(4), np.zeros((4, 2), np.uint32))
    rows, before = environment.save()
    rows = rows.copy()
    rows[0, 5] = np.nan
    environment.load((rows, before))
    return environment.step(np.zeros((4, len(environment.action_low))), None)[1]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_divergence_leaves_no_trace_outside_the_log(
    num_threads, tmp_path, monkeypatch, capfd, caplog
):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG, "pes_rl")
    rewards = diverge(MujocoEnvironment("halfcheetah", num_threads))
    np.testing.assert_array_equal(np.isnan(rewards), [True, False, False, False])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    messages = [record.getMessage() for record in caplog.records]
    assert any("'settotalmass' is deprecated" in text for text in messages)
    assert any("huge value in QPOS at DOF 4" in text for text in messages)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert mujoco.get_mju_user_warning() is None


def test_an_unexpected_warning_is_shown(caplog):
    with warnings_logged():
        mujoco.get_mju_user_warning()("contact buffer is full")
    ((_, level, text),) = caplog.record_tuples
    assert (level, text) == (logging.WARNING, "MuJoCo: contact buffer is full")


def test_a_handler_of_the_caller_comes_back():
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        diverge(MujocoEnvironment("hopper", 1))
        assert heard == []
        mujoco.get_mju_user_warning()("more")
        assert heard == ["more"]
    finally:
        mujoco.set_mju_user_warning(None)
