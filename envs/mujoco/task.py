"""What a MuJoCo task is, and the pieces that several share."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from pes_rl.envs.rollout.episodes import Array

Fields = dict[str, Array]
Start = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Noise:
    """First states: the model's first pose at rest, and noise on every coordinate.

    Attributes:
        scale: Positions get U(-scale, scale).
        normal: Velocities get scale times a unit normal instead of U(-scale, scale).
    """

    scale: float
    normal: bool = False

    def __call__(self, model: mujoco.MjModel, generator: np.random.Generator) -> Start:
        """Draw (qpos, qvel)."""
        noise = generator.uniform(-self.scale, self.scale, model.nq)
        if self.normal:
            qvel = self.scale * generator.standard_normal(model.nv)
        else:
            qvel = generator.uniform(-self.scale, self.scale, model.nv)
        return model.qpos0 + noise, qvel


@dataclass(frozen=True)
class Task:
    """What makes a MuJoCo model a reinforcement-learning task.

    `observe` and `evaluate` take fields of one simulation or of many.

    Attributes:
        gymnasium_id: Gymnasium's environment of the same task.
        model_file: Model among those that Gymnasium ships.
        frame_skip: Physics steps in one environment step.
        first_state: (model, generator) -> (qpos, qvel) of one new episode.
        observe: (model, fields) -> observations.
        evaluate: (model, fields before the step, fields after it, actions, seconds of a
            step) -> (rewards, terminated).
        horizon: Environment steps after which an episode is cut.
        fields: Fields that it reads besides qpos and qvel. `cfrc_ext`, the contact
            forces, has to be asked of one simulation after another.
        earlier: Fields whose values before a step it reads.
    """

    gymnasium_id: str
    model_file: str
    frame_skip: int
    first_state: Callable[[mujoco.MjModel, np.random.Generator], Start]
    observe: Callable[[mujoco.MjModel, Fields], Array]
    evaluate: Callable[
        [mujoco.MjModel, Fields, Fields, Array, float], tuple[Array, Array]
    ]
    horizon: int = 1000
    fields: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()


def square(x: Array) -> Array:
    """Squared norm over the last axis."""
    return x.__array_namespace__().vecdot(x, x)


def never(qpos: Array) -> Array:
    """No simulation's episode ends."""
    return qpos.__array_namespace__().zeros(qpos.shape[:-1], bool)


def flat(x: Array) -> Array:
    """The last two axes as one."""
    return x.reshape(*x.shape[:-2], -1)


def positions_and_velocities(skip: int, clip: float | None = None) -> Callable:
    """Observe all positions but the first `skip`, and velocities within +-`clip`."""

    def observe(model: mujoco.MjModel, now: Fields) -> Array:
        del model
        xp = now["qpos"].__array_namespace__()
        qvel = now["qvel"] if clip is None else xp.clip(now["qvel"], -clip, clip)
        return xp.concat([now["qpos"][..., skip:], qvel], axis=-1)

    return observe


def within(x: Array, low: float, high: float) -> Array:
    """Where low < x < high."""
    return (low < x) & (x < high)
