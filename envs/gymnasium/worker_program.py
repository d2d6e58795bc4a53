"""The program of a worker process: simulations at the other end of a connection.

It is run as a script, and loads the files beside it as a package of another name: an
import of `pes_rl` would need that on the path before the parent has sent it, and could
load JAX. So a worker starts fast and needs little more memory than the simulator. This
is why those files import each other relatively, and nothing else of `pes_rl`.
"""

import signal

if __name__ == "__main__":
    # The parent handles Ctrl-C, also the one that comes during these imports.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

import sys
import traceback
from importlib import import_module, util
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

_ALIAS = "pes_rl_worker"


def load(name: str) -> ModuleType:
    """The module of that name beside this file."""
    if _ALIAS not in sys.modules:
        here = Path(__file__).parent
        spec = util.spec_from_file_location(
            _ALIAS, here / "__init__.py", submodule_search_locations=[str(here)]
        )
        assert spec is not None
        sys.modules[_ALIAS] = util.module_from_spec(spec)
    return import_module(f"{_ALIAS}.{name}")


def serve(connection: Connection) -> None:
    """Main loop of a worker process: answer calls until the parent disconnects.

    The first message is the parent's `sys.path`. Every further one is a cloudpickled
    (method, arguments), the first of them "make" with the arguments of `Simulations`;
    it returns the length of an observation. Each answer is (True, result) or (False,
    (message, traceback)).
    """
    make, describe = load("simulations").Simulations, load("results").describe
    sys.path[:] = connection.recv()
    simulations: Any = None
    try:
        while True:
            message = connection.recv_bytes()
            try:
                name, arguments = cloudpickle.loads(message)
                if name == "make":
                    simulations = make(*arguments)
                    result = simulations.observation_size
                else:
                    result = getattr(simulations, name)(*arguments)
            except (Exception, SystemExit) as error:
                known = isinstance(error, ValueError)
                text = str(error) if known else describe(error)
                connection.send((False, (text, traceback.format_exc())))
            else:
                connection.send((True, result))
    except (EOFError, ConnectionError):
        if simulations is not None:
            simulations.close()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
