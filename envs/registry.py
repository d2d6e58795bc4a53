"""Environments by name."""

import difflib
from dataclasses import fields
from typing import Any, Literal

from pes_rl.envs.host_environment import HostEnvironment
from pes_rl.envs.problem import DeviceEnvironment
from pes_rl.envs.unrolled.problem import UnrolledProblem

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

HANDED_OVER = "python:"
"""Begins the name of an environment that Python code handed over."""


def environment_names() -> list[str]:
    """Every name that `make` knows, but for those of Gymnasium, `gym:ID`."""
    families = {
        "jax": CLOSED_FORM_NAMES,
        "brax": BRAX_NAMES,
        "unrolled": UNROLLED_NAMES,
    }
    prefixed = (f"{family}:{name}" for family in families for name in families[family])
    return [*NATIVE_NAMES, *prefixed]


def make(
    name: str,
    *,
    num_threads: int = 0,
    backend: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vectorization: Literal["auto", "sync", "async", "envpool"] = "auto",
) -> HostEnvironment | DeviceEnvironment | UnrolledProblem:
    """Make an environment, or an unrolled problem.

    Args:
        name: A native MuJoCo task (`swimmer`, `hopper`, ...), `jax:NAME` for one in
            closed form, `brax:NAME`, `unrolled:NAME`, or `gym:ID` for any environment
            of Gymnasium's (`gym:package:Id` imports the package first).
        num_threads: Threads that step a native MuJoCo batch or EnvPool's, or worker
            processes; 0 takes every CPU.
        backend: Physics backend of a Brax environment; None takes its default.
        env_kwargs: Keyword arguments of a Gymnasium environment, or the options of an
            unrolled problem.
        vectorization: How a Gymnasium environment is stepped, as of
            `GymnasiumEnvironment`.

    Raises:
        ValueError: If the name is unknown, or an option does not fit its family.
    """
    check_name(name)
    if name.startswith(HANDED_OVER):
        raise ValueError(
            f"{name} was handed over from Python, where pes_rl.train can train on it "
            "again; to name it here, register it with Gymnasium and use gym:ID"
        )
    family, _, task = name.partition(":") if ":" in name else ("", "", name)
    if env_kwargs and family not in ("gym", "unrolled"):
        raise ValueError(
            f"env_kwargs={env_kwargs} are for gym:ID and unrolled:NAME; drop them"
        )
    if vectorization != "auto" and family != "gym":
        raise ValueError(
            f"vectorization={vectorization!r} is for gym:ID; drop it for {name}"
        )
    # A family's simulator is imported when one of its environments is made: Brax alone
    # takes seconds.
    if family == "brax":
        from pes_rl.envs.brax_family import BraxEnvironment

        return BraxEnvironment(task, backend)
    if backend is not None:
        raise ValueError(
            f"backend={backend!r} is for Brax environments; drop it, or use brax:{task}"
        )
    if family == "unrolled":
        return _make_unrolled(task, env_kwargs or {})
    if family == "gym":
        from pes_rl.envs.gymnasium_family import GymnasiumEnvironment

        return GymnasiumEnvironment(task, env_kwargs, vectorization, num_threads)
    if family == "jax":
        from pes_rl.envs.closed_form import ClosedFormEnvironment

        return ClosedFormEnvironment(task)
    from pes_rl.envs.native_mujoco import MujocoEnvironment

    return MujocoEnvironment(task, num_threads)


def _make_unrolled(name: str, options: dict[str, Any]) -> UnrolledProblem:
    from pes_rl.envs.unrolled import PROBLEMS

    kind = PROBLEMS[name]
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(f"option of unrolled:{name}", option, known))
    # JSON knows lists only.
    values: dict[str, Any] = {
        option: tuple(value) if isinstance(value, list) else value
        for option, value in options.items()
    }
    return kind(**values)


def is_unrolled(name: str) -> bool:
    """Whether the name is that of an unrolled problem."""
    return name.startswith("unrolled:")


def is_in_jax(name: str) -> bool:
    """Whether a name is of what is written in JAX, and so can be traced and vmapped."""
    return name.startswith(("jax:", "brax:", "unrolled:"))


def native_twin(name: str) -> str | None:
    """The native MuJoCo task that is the same as a `gym:ID`, or None."""
    from pes_rl.envs.mujoco_tasks import TASKS

    twins = {f"gym:{task.gymnasium_id}": twin for twin, task in TASKS.items()}
    return twins.get(name)


def check_name(name: str) -> None:
    """Raise `ValueError` for a name unknown to `make`, which tries Gymnasium's ids."""
    is_open = name.startswith(("gym:", HANDED_OVER)) and not name.endswith(":")
    if not is_open and name not in environment_names():
        known = [*environment_names(), "gym:ID"]
        raise ValueError(unknown_name("environment", name, known))


def unknown_name(kind: str, name: Any, known: list[str]) -> str:
    """Message for a name that is not known: the known ones, nearest first."""
    near = difflib.get_close_matches(str(name), known, n=len(known), cutoff=0.5)
    ordered = [*near, *(other for other in known if other not in near)]
    return f"unknown {kind} {name!r}; use one of: {', '.join(ordered)}"
