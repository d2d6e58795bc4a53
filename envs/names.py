"""Names of environments, and checks of a name."""

import difflib
import sys
from typing import Any

NATIVE_NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "swimmer",
    "walker2d",
)
CLOSED_FORM_NAMES = ("swimmer",)
BRAX_NAMES = tuple(sorted((*NATIVE_NAMES, "fast")))
"""Names that Brax registers itself; a user can register more."""
UNROLLED_NAMES = (
    "influence-balancing",
    "l2-regression",
    "learned-optimizer",
    "lr-schedule",
    "lstm",
    "mlp-hyperparameters",
    "toy-regression",
)

PYTHON_PREFIX = "python:"
"""Prefix of the name of an environment that was passed as a Python object."""
PYTHON_JAX_PREFIX = PYTHON_PREFIX + "jax:"
"""The same where the environment is written in JAX; MODULE:CLASS follows."""

OPEN_NAMES = (
    "gym:ID",
    "jax:PACKAGE:NAME",
    "brax:PACKAGE:NAME",
    "gymnax:NAME",
    "playground:NAME",
)
"""Forms of names that only the package they belong to can check."""


def environment_names() -> list[str]:
    """All names that `make` accepts, except those of the forms in `OPEN_NAMES`.

    Example:
        >>> names = environment_names()
        >>> "swimmer" in names, "brax:ant" in names, "unrolled:lstm" in names
        (True, True, True)
    """
    families = {
        "jax": CLOSED_FORM_NAMES,
        "brax": BRAX_NAMES,
        "unrolled": UNROLLED_NAMES,
    }
    prefixed = (f"{family}:{name}" for family in families for name in families[family])
    return [*NATIVE_NAMES, *prefixed]


def is_unrolled(name: str) -> bool:
    """Whether this is the name of an unrolled problem."""
    return name.startswith("unrolled:")


def is_in_jax(name: str) -> bool:
    """Whether this is the name of an environment or problem written in JAX."""
    families = ("jax:", "brax:", "gymnax:", "playground:", "unrolled:")
    return name.startswith((*families, PYTHON_JAX_PREFIX))


def check_name(name: str) -> None:
    """Raise `ValueError` for an unknown name; those in `OPEN_NAMES` are not checked."""
    if not _is_open(name) and name not in environment_names():
        known = [*environment_names(), *OPEN_NAMES]
        raise ValueError(unknown_name("environment", name, known))


def _is_open(name: str) -> bool:
    if name.endswith(":"):
        return False
    family, _, task = name.partition(":")
    if family == "jax":
        return task.find(":") > 0
    if family == "brax":
        return task.find(":") > 0 or task in registered_in_brax()
    return name.startswith(("gym:", "gymnax:", "playground:", PYTHON_PREFIX))


def registered_in_brax() -> list[str]:
    """Names in Brax's registry; those of Brax itself where Brax is not imported yet.

    Nothing else can be registered before Brax is imported, which takes seconds.
    """
    brax = sys.modules.get("brax.envs")
    # Brax has no public list of its names.
    return list(BRAX_NAMES if brax is None else getattr(brax, "_envs", BRAX_NAMES))


def unknown_name(kind: str, name: Any, known: list[str]) -> str:
    """Error message for an unknown name that lists the known ones, nearest first."""
    near = difflib.get_close_matches(str(name), known, n=len(known), cutoff=0.5)
    ordered = [*near, *(other for other in known if other not in near)]
    return f"unknown {kind} {name!r}; use one of: {', '.join(ordered)}"
