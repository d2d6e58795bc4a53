"""Names of environments, and checks of a name."""

import difflib
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


def environment_names() -> list[str]:
    """All names that `make` accepts, except Gymnasium's, which are `gym:ID`."""
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
    return name.startswith(("jax:", "brax:", "unrolled:"))


def check_name(name: str) -> None:
    """Raise `ValueError` for an unknown name; ids of Gymnasium are not checked here."""
    is_open = name.startswith(("gym:", PYTHON_PREFIX)) and not name.endswith(":")
    if not is_open and name not in environment_names():
        known = [*environment_names(), "gym:ID"]
        raise ValueError(unknown_name("environment", name, known))


def unknown_name(kind: str, name: Any, known: list[str]) -> str:
    """Error message for an unknown name that lists the known ones, nearest first."""
    near = difflib.get_close_matches(str(name), known, n=len(known), cutoff=0.5)
    ordered = [*near, *(other for other in known if other not in near)]
    return f"unknown {kind} {name!r}; use one of: {', '.join(ordered)}"
