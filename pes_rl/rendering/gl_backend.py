"""Choice of the OpenGL backend that MuJoCo draws with, without a screen."""

import os
import subprocess
import sys

_TRY_BACKEND = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
assert renderer.render().any()
"""


def choose_gl_backend() -> None:
    """Set MUJOCO_GL to a backend that draws: EGL, OSMesa, or GLFW on a display.

    MuJoCo reads it when it is imported, so this comes first, and each backend is tried
    in a process of its own. A MUJOCO_GL that is set already is tried alone. Systems
    other than Linux have a backend of their own and are left alone.

    Raises:
        ValueError: If none draws.
    """
    if sys.platform != "linux":
        return
    wanted = os.environ.get("MUJOCO_GL")
    on_display = ["glfw"] if os.environ.get("DISPLAY") else []
    candidates = [wanted] if wanted else ["egl", "osmesa", *on_display]
    for backend in candidates:
        if _draws(backend):
            os.environ["MUJOCO_GL"] = backend
            return
    raise ValueError(
        f"MuJoCo cannot draw with {' or '.join(candidates)}; install EGL (Debian: "
        "apt-get install libegl1 libgl1-mesa-dri) or OSMesa (apt-get install "
        "libosmesa6)" + (", or unset MUJOCO_GL" if wanted else "")
    )


def _draws(backend: str) -> bool:
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)  # MuJoCo sets it to fit
    tried = subprocess.run(
        [sys.executable, "-c", _TRY_BACKEND], env=environment, capture_output=True
    )
    return tried.returncode == 0
