"""The command `python -m pes_rl.train`, and the function `pes_rl.train`.

The command is in train_command.py and the function in front_door.py. `import
pes_rl.train` binds what it finds in `sys.modules` to the package's name `train`; with
the function standing there, `pes_rl.train(...)` works after any order of imports.
"""

import sys
from typing import Any

from pes_rl.runtime.command_line import finish
from pes_rl.training.api import train
from pes_rl.training.command import main

if __name__ == "__main__":
    finish(main())

_modules: dict[str, Any] = sys.modules
_modules[__name__] = train
