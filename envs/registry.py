"""Environments by name."""

import difflib
from typing import Any

from pes_rl.envs.device import DeviceEnvironment
from pes_rl.envs.host import HostEnvironment

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
BRAX_NAMES = (
    "ant",
    "fast",
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


def environment_names() -> list[str]:
    """Every name that `make` knows."""
    families = {"jax": CLOSED_FORM_NAMES, "brax": BRAX_NAMES}
    prefixed = (f"{family}:{name}" for family in families for name in families[family])
    return [*NATIVE_NAMES, *prefixed]


def make(
    name: str, *, num_threads: int = 0, backend: str | None = None
) -> HostEnvironment | DeviceEnvironment:
    """Make an environment.

    Args:
        name: A native MuJoCo task (`swimmer`, `hopper`, ...), `jax:NAME` for one in
            closed form, or `brax:NAME`.
        num_threads: Threads that step a native MuJoCo batch; 0 takes every CPU.
        backend: Physics backend of a Brax environment; None takes its default.

    Raises:
        ValueError: If the name is unknown, or an option does not fit its family.
    """
    if name not in environment_names():
        raise ValueError(unknown_name("environment", name, environment_names()))
    family, _, task = name.rpartition(":")
    # A family's simulator is imported when one of its environments is made: Brax alone
    # takes seconds.
    if family == "brax":
        from pes_rl.envs.brax_family import BraxEnvironment

        return BraxEnvironment(task, backend)
    if backend is not None:
        raise ValueError(
            f"backend={backend!r} is for Brax environments; drop it, or use brax:{task}"
        )
    if family == "jax":
        from pes_rl.envs.closed_form import ClosedFormEnvironment

        return ClosedFormEnvironment(task)
    from pes_rl.envs.native_mujoco import MujocoEnvironment

    return MujocoEnvironment(task, num_threads)


def unknown_name(kind: str, name: Any, known: list[str]) -> str:
    """Message for a name that is not known: the known ones, nearest first."""
    near = difflib.get_close_matches(str(name), known, n=len(known), cutoff=0.5)
    ordered = [*near, *(other for other in known if other not in near)]
    return f"unknown {kind} {name!r}; use one of: {', '.join(ordered)}"
