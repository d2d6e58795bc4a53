"""Contact forces of all simulations of a batch, computed on its threads.

MuJoCo's step leaves `cfrc_ext` alone; `mj_rnePostConstraint` computes it from the
contacts that the step found. Gymnasium calls it after each step. A `Batch` has no such
call, but MuJoCo calls the function `advance` of a model's plugins at the end of each
step, on the thread that takes it, with the model and the data. So the model gets a
plugin whose `advance` is `mj_rnePostConstraint`, and `cfrc_ext` is a field of the batch
like any other, with Gymnasium's values to the bit.
"""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

import ctypes
import functools

import mujoco

from pes_rl.envs.mujoco.messages import warnings_logged
from pes_rl.envs.mujoco.tasks import ASSETS, Task

_NAME = "pes_rl.contact_forces"

_FUNCTIONS = (
    "nstate",
    "nsensordata",
    "init",
    "destroy",
    "copy",
    "reset",
    "compute",
    "advance",
)


class _Plugin(ctypes.Structure):
    """C's `mjpPlugin` (mujoco/mjplugin.h), the same in all of MuJoCo 3 and 4."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("nattribute", ctypes.c_int),
        ("attributes", ctypes.c_void_p),
        ("capabilityflags", ctypes.c_int),
        ("needstage", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in _FUNCTIONS),
        # Functions for drawing and for distances, which stay unset.
        ("others", ctypes.c_void_p * 32),
    ]


# The plugin adds nothing to the simulation's state. MuJoCo asks for its size when it
# compiles a model.
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
def _no_state(model: int, instance: int) -> int:
    del model, instance
    return 0


@functools.cache
def can_compute_in_step() -> bool:
    """Whether MuJoCo can have the plugin; registers it on the first call."""
    if mujoco.__version__.split(".")[0] not in ("3", "4"):
        return False  # Another layout of the plugin would crash the process.
    try:
        library = ctypes.CDLL(mujoco._callbacks.__file__)
        compute = library.mj_rnePostConstraint
        plugin = _Plugin()
        library.mjp_defaultPlugin(ctypes.byref(plugin))
        plugin.name = _NAME.encode()
        plugin.nstate = ctypes.cast(_no_state, ctypes.c_void_p)
        plugin.advance = ctypes.cast(compute, ctypes.c_void_p)
        return library.mjp_registerPlugin(ctypes.byref(plugin)) >= 0
    except (OSError, AttributeError):  # Windows searches only that one file.
        return False


def load_with_contact_forces(task: Task) -> mujoco.MjModel:
    """The task's model; each of its steps also computes `cfrc_ext`.

    MuJoCo must be able to; see `can_compute_in_step`.
    """
    with warnings_logged():
        spec = mujoco.MjSpec.from_file(str(ASSETS / task.model_file))
        spec.activate_plugin(_NAME)
        plugin = spec.add_plugin()
        plugin.plugin_name = plugin.name = _NAME
        plugin.active = True
        return spec.compile()
