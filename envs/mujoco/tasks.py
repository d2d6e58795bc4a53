"""Gymnasium's MuJoCo tasks, version 5, by name.

A task reads a dictionary of MuJoCo's fields by MuJoCo's names, each with leading axes
of simulations. Fields computed by MuJoCo (`xpos`, `site_xpos`, `cvel`, ...) describe
the state before the last physics step, as after `mj_step`, and as in Gymnasium.
Sources: Gymnasium's modules envs.mujoco.NAME_v5; the horizons are those of its
registrations.
"""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from pathlib import Path

import gymnasium
import mujoco

from pes_rl.envs.mujoco.arms_and_poles import ARMS_AND_POLES
from pes_rl.envs.mujoco.locomotion import LOCOMOTION
from pes_rl.envs.mujoco.messages import warnings_logged
from pes_rl.envs.mujoco.task import (
    Fields as Fields,
    Noise as Noise,
    Task as Task,
)

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
"""Folder of the models in Gymnasium's package."""

TASKS: dict[str, Task] = {**LOCOMOTION, **ARMS_AND_POLES}


def load_model(task: Task) -> mujoco.MjModel:
    """The task's model, compiled by MuJoCo."""
    with warnings_logged():
        return mujoco.MjModel.from_xml_path(str(ASSETS / task.model_file))
