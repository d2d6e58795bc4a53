"""The command `python -m pes_rl.train`, and the function `pes_rl.train`.

A module and a function of the package have the same name. Importing the module puts the
function in its place in `sys.modules`, so that `pes_rl.train(...)` works whatever was
imported before.
"""

import sys
from typing import Any

if __name__ == "__main__":
    from pes_rl.runtime.command_line import finish
    from pes_rl.training.command import main

    finish(main())
else:
    from pes_rl.training.api import train

    _modules: dict[str, Any] = sys.modules
    _modules[__name__] = train
