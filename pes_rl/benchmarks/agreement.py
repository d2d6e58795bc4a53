"""How closely a native MuJoCo task follows Gymnasium's environment of the same name."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np

from pes_rl.envs.mujoco.environment import MujocoEnvironment
from pes_rl.envs.mujoco.tasks import TASKS

FOLLOWED = 1
"""Simulation of the batch of three that Gymnasium's follows: one with neighbours."""


@dataclass(frozen=True)
class Agreement:
    """Differences between a native task and Gymnasium's environment.

    Attributes:
        difference: Largest |ours - theirs| / (1 + |theirs|) of an observed coordinate
            or a reward.
        steps: Steps compared.
        early_ends: Episodes among them that ended before the time limit.
        ends_agree: Whether every episode ended at the same step on both.
    """

    difference: float
    steps: int
    early_ends: int
    ends_agree: bool


def measure_agreement(name: str, max_steps: int = 2000) -> Agreement:
    """Step a native task and Gymnasium's environment with the same actions.

    Two whole episodes under random actions, some of them beyond their bounds, or
    `max_steps` steps of them.
    """
    ours = MujocoEnvironment(name, num_threads=2)
    theirs: Any = gymnasium.make(TASKS[name].gymnasium_id)
    ours.allocate(3)
    generator = np.random.default_rng(0)
    low, high = 1.3 * ours.action_low, 1.3 * ours.action_high
    difference, steps, ends = 0.0, 0, []
    ends_agree = True
    for episode in range(2):
        # The neighbours continue their episodes while the second starts a new one.
        ids = np.arange(3) if episode == 0 else np.array([FOLLOWED])
        keys = np.stack([ids, np.full_like(ids, episode)], axis=1).astype(np.uint32)
        first = ours.reset(ids, keys)[ids == FOLLOWED]
        difference = max(difference, _difference(first, _copy_state(theirs, ours)))
        ended = cut = False
        while not (ended or cut) and steps < max_steps:
            actions = generator.uniform(low, high, (3, len(low)))
            observations, rewards, terminated = ours.step(actions, None)
            expected, reward, ended, cut, _ = theirs.step(actions[FOLLOWED])
            difference = max(
                difference,
                _difference(observations[FOLLOWED], expected),
                _difference(rewards[FOLLOWED], reward),
            )
            ends_agree &= bool(terminated[FOLLOWED]) == ended
            steps += 1
        ends.append(ended)
    theirs.close()
    return Agreement(difference, steps, sum(ends), ends_agree)


def _copy_state(theirs: Any, ours: MujocoEnvironment) -> np.ndarray:
    """Set Gymnasium's environment to our state; returns its observation."""
    data = mujoco.MjData(ours.model)
    rows, _ = ours.save()
    integration = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(ours.model, data, rows[FOLLOWED], integration)
    theirs.reset(seed=0)
    theirs.unwrapped.set_state(data.qpos.copy(), data.qvel.copy())
    return theirs.unwrapped._get_obs()


def _difference(ours: Any, theirs: Any) -> float:
    return float(np.max(np.abs(ours - theirs) / (1 + np.abs(theirs))))
