"""Own environments written in JAX: `jax:PACKAGE:NAME`, and objects passed from Python.

Those of Brax, gymnax and MuJoCo Playground are put into their adapters here, without
importing a package that the environment itself has not imported.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from pes_rl.envs.gymnasium.results import describe
from pes_rl.envs.interface import check_interface
from pes_rl.envs.names import PYTHON_JAX_PREFIX, unknown_name
from pes_rl.envs.rollout.environment import DeviceEnvironment

_FOREIGN = (
    ("brax", "brax.envs", "Env"),
    ("gymnax", "gymnax.environments.environment", "Environment"),
    ("playground", "mujoco_playground", "MjxEnv"),
)
"""Packages that have an adapter, and the module and name of their base class."""


def make_own(task: str, env_kwargs: dict[str, Any]) -> DeviceEnvironment:
    """Make the environment `jax:PACKAGE:NAME`.

    Args:
        task: "PACKAGE:NAME". PACKAGE is imported; its NAME, a class or a function, is
            called and returns what `adapt` accepts.
        env_kwargs: Keyword arguments of the call.

    Raises:
        ValueError: If it cannot be imported or made, or is no such environment.
    """
    package, _, name = task.partition(":")
    module = import_package(package, f"jax:{task}")
    maker = getattr(module, name, None)
    if not callable(maker):
        known = [
            other
            for other, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
        ]
        if not known:
            raise ValueError(
                f"{package} has no class or function {name!r}, nor any other of its "
                "own; name the module that defines it"
            )
        raise ValueError(unknown_name(f"environment of {package}", name, known))
    try:
        environment = maker(**env_kwargs)
    except Exception as error:
        raise ValueError(
            f"jax:{task}: {name} could not be called with {env_kwargs or 'nothing'}: "
            f"{describe(error)}"
        ) from error
    return adapt(environment, f"jax:{task}")


def import_package(package: str, name: str) -> ModuleType:
    """Import a package that the name of an environment names.

    Raises:
        ValueError: If that raises anything.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name}: {package!r} cannot be imported: {error}; install it, or put the "
            "folder that holds it on the PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{name}: the import of {package!r} raised {describe(error)}"
        ) from error


def is_own(environment: Any) -> bool:
    """Whether an object, passed from Python, is to be an environment written in JAX.

    All objects are that are not Gymnasium's own, and that do not make an environment
    when they are called.
    """
    if isinstance(environment, str | VectorEnv | gymnasium.Env):
        return False
    if isinstance(environment, type):
        return hasattr(environment, "on_device")  # which `adapt` explains
    is_foreign = _adapter_of(environment) is not None
    return is_foreign or hasattr(environment, "on_device") or not callable(environment)


def name_of(environment: Any) -> str:
    """Name in the run folder of an object that was passed from Python."""
    kind = type(environment)
    return f"{PYTHON_JAX_PREFIX}{kind.__module__}:{kind.__qualname__}"


def adapt(environment: Any, name: str) -> DeviceEnvironment:
    """The object as a `DeviceEnvironment`.

    Args:
        environment: An object with that interface, which is returned as it is; or an
            environment of Brax (without its training wrappers), gymnax or MuJoCo
            Playground, which is put into its adapter.
        name: Its name in error messages.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(environment, type):
        raise ValueError(
            f"{environment.__qualname__} is a class; pass an object of it, such as "
            f"{environment.__qualname__}()"
        )
    adapter = _adapter_of(environment)
    if adapter == "brax":
        from pes_rl.envs.brax import BraxEnvironment

        return BraxEnvironment(environment)
    if adapter == "gymnax":
        from pes_rl.envs.gymnax import GymnaxEnvironment

        return GymnaxEnvironment(environment)
    if adapter == "playground":
        from pes_rl.envs.playground import PlaygroundEnvironment

        return PlaygroundEnvironment(environment)
    check_interface(environment, name)
    return environment


def _adapter_of(environment: Any) -> str | None:
    """The package that an environment belongs to; None for an own one."""
    for package, module, kind in _FOREIGN:
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(environment, getattr(loaded, kind)):
            return package
    return None
