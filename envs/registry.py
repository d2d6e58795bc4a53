"""Construction of environments and unrolled problems by name."""

from dataclasses import fields
from typing import Any, Literal

from pes_rl.envs.names import PYTHON_PREFIX, check_name, unknown_name
from pes_rl.envs.rollout.environment import DeviceEnvironment, HostEnvironment
from pes_rl.envs.unrolled.problem import UnrolledProblem


def make(
    name: str,
    *,
    num_threads: int = 0,
    backend: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vectorization: Literal["auto", "sync", "async", "envpool"] = "auto",
    sample_actions: bool = False,
) -> HostEnvironment | DeviceEnvironment | UnrolledProblem:
    """Make an environment or an unrolled problem.

    Args:
        name: A native MuJoCo task (`swimmer`, `hopper`, ...), `jax:NAME` for a task in
            closed form, `brax:NAME`, `unrolled:NAME`, or `gym:ID` for any environment
            of Gymnasium (`gym:package:Id` imports the package first).
        num_threads: Threads of native MuJoCo or EnvPool, or worker processes of a
            Gymnasium environment; 0 uses every CPU.
        backend: Physics backend of a Brax environment; None uses its default.
        env_kwargs: Keyword arguments of a Gymnasium environment, or options of an
            unrolled problem.
        vectorization: How the simulations of a Gymnasium environment are stepped; see
            `GymnasiumEnvironment`.
        sample_actions: Choose discrete actions of a Gymnasium environment at random;
            see `GymnasiumEnvironment`.

    Raises:
        ValueError: If the name is unknown, or an option is for another family.
    """
    check_name(name)
    if name.startswith(PYTHON_PREFIX):
        raise ValueError(
            f"{name} was passed as a Python object, and pes_rl.train can train on that "
            "object again; to name it here, register it with Gymnasium and use gym:ID"
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
    if sample_actions and family != "gym":
        raise ValueError(
            f"sample_actions is for discrete actions of gym:ID; drop it for {name}"
        )
    # A simulator is imported only when one of its environments is made: importing Brax
    # takes seconds.
    if family == "brax":
        from pes_rl.envs.brax import BraxEnvironment

        return BraxEnvironment(task, backend)
    if backend is not None:
        raise ValueError(
            f"backend={backend!r} is for Brax environments; drop it, or use brax:{task}"
        )
    if family == "unrolled":
        return _make_unrolled(task, env_kwargs or {})
    if family == "gym":
        from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment

        return GymnasiumEnvironment(
            task, env_kwargs, vectorization, num_threads, sample_actions
        )
    if family == "jax":
        from pes_rl.envs.closed_form.environment import ClosedFormEnvironment

        return ClosedFormEnvironment(task)
    from pes_rl.envs.mujoco.environment import MujocoEnvironment

    return MujocoEnvironment(task, num_threads)


def _make_unrolled(name: str, options: dict[str, Any]) -> UnrolledProblem:
    from pes_rl.envs.unrolled import PROBLEMS

    kind = PROBLEMS[name]
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(f"option of unrolled:{name}", option, known))
    # Options can come from JSON, which has lists but no tuples.
    values: dict[str, Any] = {
        option: tuple(value) if isinstance(value, list) else value
        for option, value in options.items()
    }
    return kind(**values)


def native_equivalent(name: str) -> str | None:
    """Name of the native MuJoCo task that is the same as this `gym:ID`, or None."""
    from pes_rl.envs.mujoco.tasks import TASKS

    natives = {f"gym:{task.gymnasium_id}": native for native, task in TASKS.items()}
    return natives.get(name)


def has_faster_backend(name: str, backend: str | None) -> bool:
    """Whether this Brax environment has physics that are faster than these.

    `spring` took 0.19 of the time of `generalized`, the default, on ant and 0.12 on
    reacher (64 particles on two cores of a CPU). It stays a choice of the user's,
    because it is another task: joints and contacts are springs there.
    """
    family, _, task = name.partition(":")
    # Brax's Swimmer has no other backend, and fast has no physics.
    is_choice = family == "brax" and task not in ("swimmer", "fast")
    return is_choice and backend in (None, "generalized")
