"""The peers' own virtual environment."""

import subprocess
import sys
from pathlib import Path

PACKAGES = (
    "stable-baselines3==2.9.2",
    "sb3-contrib==2.9.2",
    "evotorch==0.6.1",
    "torch==2.13.0",
    # As in this package's environment when the study was written.
    "gymnasium[mujoco]==1.4.0",
    "mujoco==4.0.0",
)


def peers_python(folder: Path) -> str:
    """The Python of the environment in `folder`, which is made where it is missing.

    Raises:
        ValueError: If pip fails.
    """
    python, done = folder / "bin" / "python", folder / "packages.txt"
    wanted = "\n".join(PACKAGES)
    if done.exists() and done.read_text() == wanted:
        return str(python)
    print(
        f"waiting for pip, which installs the peers into {folder}: some 2 GB, minutes, "
        "this once",
        flush=True,
    )
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    except subprocess.CalledProcessError as error:
        raise ValueError(
            f"the peers' environment could not be made ({error}); see pip's lines above"
        ) from error
    done.write_text(wanted)
    return str(python)
