"""The description of a MuJoCo task, and functions that several tasks share."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from pes_rl.envs.rollout.episodes import Array

Fields = dict[str, Array]  # MuJoCo's fields by MuJoCo's names
InitialState = tuple[np.ndarray, np.ndarray]  # (qpos, qvel)


@dataclass(frozen=True)
class Noise:
    """Distribution of first states: the model's initial pose at rest, plus noise.

    Attributes:
        scale: The noise of a position or velocity is U(-scale, scale).
        normal: The noise of a velocity is scale times a unit normal instead.
    """

    scale: float
    normal: bool = False

    def __call__(
        self, model: mujoco.MjModel, generator: np.random.Generator
    ) -> InitialState:
        """Draw (qpos, qvel)."""
        noise = generator.uniform(-self.scale, self.scale, model.nq)
        if self.normal:
            qvel = self.scale * generator.standard_normal(model.nv)
        else:
            qvel = generator.uniform(-self.scale, self.scale, model.nv)
        return model.qpos0 + noise, qvel


@dataclass(frozen=True)
class Task:
    """A reinforcement-learning task on a MuJoCo model.

    `observe` and `evaluate` take the fields of one simulation or of many.

    Attributes:
        gymnasium_id: Id of Gymnasium's environment for the same task.
        model_file: File of the model in Gymnasium's package.
        frame_skip: Physics steps in one environment step.
        first_state: (model, generator) -> (qpos, qvel) at the start of an episode.
        observe: (model, fields) -> observations.
        evaluate: (model, fields before the step, fields after it, actions, duration of
            a step in seconds) -> (rewards, terminated).
        horizon: Time limit of an episode, in environment steps.
        fields: Fields that the task reads besides qpos and qvel.
        previous_fields: Fields whose values before a step `evaluate` reads.
    """

    gymnasium_id: str
    model_file: str
    frame_skip: int
    first_state: Callable[[mujoco.MjModel, np.random.Generator], InitialState]
    observe: Callable[[mujoco.MjModel, Fields], Array]
    evaluate: Callable[
        [mujoco.MjModel, Fields, Fields, Array, float], tuple[Array, Array]
    ]
    horizon: int = 1000
    fields: tuple[str, ...] = ()
    previous_fields: tuple[str, ...] = ()


def squared_norm(x: Array) -> Array:
    """Squared norm over the last axis."""
    return x.__array_namespace__().vecdot(x, x)


def no_termination(qpos: Array) -> Array:
    """`terminated` of a task without early ends: False for every simulation."""
    return qpos.__array_namespace__().zeros(qpos.shape[:-1], bool)


def join_last_axes(x: Array) -> Array:
    """The array with its last two axes joined into one."""
    return x.reshape(*x.shape[:-2], -1)


def positions_and_velocities(skip: int, clip: float | None = None) -> Callable:
    """`observe` of positions without the first `skip`, and of clipped velocities."""

    def observe(model: mujoco.MjModel, now: Fields) -> Array:
        del model
        xp = now["qpos"].__array_namespace__()
        qvel = now["qvel"] if clip is None else xp.clip(now["qvel"], -clip, clip)
        return xp.concat([now["qpos"][..., skip:], qvel], axis=-1)

    return observe


def within(x: Array, low: float, high: float) -> Array:
    """Whether low < x < high, for each entry."""
    return (low < x) & (x < high)
