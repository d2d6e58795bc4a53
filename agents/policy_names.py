"""Names of policies, and the import of a network by its name; nothing imports JAX."""

import importlib
from typing import Any

from pes_rl.envs.names import PYTHON_PREFIX, unknown_name

BUILT_IN_POLICIES = ("linear", "mlp", "gru")


def is_own_network(name: str) -> bool:
    """Whether this names a network of the user: `package:Name` or `python:Name`."""
    package, _, attribute = name.partition(":")
    return bool(package and attribute)


def check_policy_name(name: str) -> None:
    """Raise `ValueError` for an unknown name; no package is imported here."""
    if name not in BUILT_IN_POLICIES and not is_own_network(name):
        known = [*BUILT_IN_POLICIES, "package:Name"]
        raise ValueError(unknown_name("policy", name, known))


def import_network(name: str) -> Any:
    """The object that `package:Name` names; importing the package executes its code.

    Raises:
        ValueError: If there is no such package, its import raises anything, or it has
            nothing of that name.

    >>> import_network("math:sin")
    <built-in function sin>
    """
    if name.startswith(PYTHON_PREFIX):
        raise ValueError(
            f"the policy {name} was passed as a Python object: pass it again, with "
            "pes_rl.train or pes_rl.load_policy; or train it as --policy package:Name"
        )
    package, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"policy={name!r}: {error}; install the package, or start Python in the "
            "folder that holds it"
        ) from error
    except (Exception, SystemExit) as error:
        from pes_rl.envs.gymnasium.results import describe

        raise ValueError(
            f"policy={name!r}: the import of {package!r} raised {describe(error)}"
        ) from error
    if not hasattr(module, attribute):
        raise ValueError(f"policy={name!r}: {package} has no {attribute}")
    return getattr(module, attribute)
