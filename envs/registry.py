"""Construction of environments and unrolled problems by name."""

from dataclasses import fields
from typing import Any, Literal

from pes_rl.envs.names import (
    PYTHON_JAX_PREFIX,
    PYTHON_PREFIX,
    check_name,
    unknown_name,
)
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
        name: A native MuJoCo task (`swimmer`, `hopper`, ...); `jax:NAME` for a task in
            closed form, `jax:package:Name` for an own environment in JAX; `brax:NAME`,
            `gymnax:NAME`, `playground:NAME`; `unrolled:NAME`; or `gym:ID` for any of
            Gymnasium's. `gym:package:Id` and `brax:package:name` import the package
            first, which registers the environment.
        num_threads: Threads of native MuJoCo or EnvPool, or worker processes of a
            Gymnasium environment; 0 uses every CPU.
        backend: Physics backend of an environment of Brax or Playground; None uses its
            default.
        env_kwargs: Keyword arguments of an environment of `gym:`, `brax:`, `gymnax:`,
            `playground:` or `jax:package:Name`, or options of an unrolled problem.
        vectorization: How the simulations of a Gymnasium environment are stepped; see
            `GymnasiumEnvironment`.
        sample_actions: Choose discrete actions of a Gymnasium environment at random;
            see `GymnasiumEnvironment`.

    Raises:
        ValueError: If the name is unknown, or an option is for another family.

    Example:
        >>> environment = make("jax:swimmer")
        >>> environment.on_device, environment.observation_size, environment.horizon
        (True, 8, 1000)
        >>> make("unrolled:toy-regression", env_kwargs={"horizon": 50}).horizon
        50
    """
    check_name(name)
    if name.startswith(PYTHON_PREFIX):
        raise ValueError(_how_to_name(name))
    family, _, task = name.partition(":") if ":" in name else ("", "", name)
    is_own = family == "jax" and ":" in task
    if env_kwargs and (family == "" or (family == "jax" and not is_own)):
        raise ValueError(
            f"env_kwargs={env_kwargs} are for gym:ID, brax:NAME, gymnax:NAME, "
            "playground:NAME, jax:PACKAGE:NAME and unrolled:NAME; drop them"
        )
    if vectorization != "auto" and family != "gym":
        raise ValueError(
            f"vectorization={vectorization!r} is for gym:ID; drop it for {name}"
        )
    if sample_actions and family != "gym":
        raise ValueError(
            f"sample_actions is for discrete actions of gym:ID; drop it for {name}"
        )
    if backend is not None and family not in ("brax", "playground"):
        raise ValueError(
            f"backend={backend!r} is for Brax environments and Playground's; drop it, "
            f"or use brax:{task}"
        )
    # A simulator is imported only when one of its environments is made: importing Brax
    # takes seconds.
    if family == "unrolled":
        return _make_unrolled(task, env_kwargs or {})
    if family == "gym":
        from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment

        return GymnasiumEnvironment(
            task, env_kwargs, vectorization, num_threads, sample_actions
        )
    if family == "gymnax":
        return _make_gymnax(task, env_kwargs or {})
    if family == "playground":
        return _make_playground(task, backend, env_kwargs or {})
    if family in ("jax", "brax"):
        return _make_in_jax(family, task, backend, env_kwargs or {})
    from pes_rl.envs.mujoco.environment import MujocoEnvironment

    return MujocoEnvironment(task, num_threads)


def _make_in_jax(
    family: str, task: str, backend: str | None, env_kwargs: dict[str, Any]
) -> DeviceEnvironment:
    package, _, rest = task.rpartition(":")
    if family == "jax" and not package:
        from pes_rl.envs.closed_form.environment import ClosedFormEnvironment

        return ClosedFormEnvironment(task)
    from pes_rl.envs.own import import_package, make_own

    if family == "jax":
        return make_own(task, env_kwargs)
    if package:
        import_package(package, f"brax:{task}")
    from pes_rl.envs.brax import BraxEnvironment

    return BraxEnvironment(rest, backend, env_kwargs)


def _make_gymnax(name: str, env_kwargs: dict[str, Any]) -> DeviceEnvironment:
    try:
        from pes_rl.envs.gymnax import GymnaxEnvironment
    except ModuleNotFoundError as error:
        raise _missing_package(error, f"gymnax:{name}", "gymnax", "gymnax") from error
    return GymnaxEnvironment(name, env_kwargs)


def _make_playground(
    name: str, backend: str | None, env_kwargs: dict[str, Any]
) -> DeviceEnvironment:
    try:
        from pes_rl.envs.playground import PlaygroundEnvironment
    except ModuleNotFoundError as error:
        raise _missing_package(
            error, f"playground:{name}", "mujoco_playground", "playground"
        ) from error
    return PlaygroundEnvironment(name, backend, env_kwargs)


def _missing_package(
    error: ModuleNotFoundError, name: str, module: str, extra: str
) -> Exception:
    """The error for a package that is not installed; any other is raised as it is."""
    if error.name is None or error.name.partition(".")[0] != module:
        return error
    return ValueError(f"{name} needs a package: pip install 'pes-rl[{extra}]'")


def _how_to_name(name: str) -> str:
    """How to name an environment that was passed as a Python object."""
    if not name.startswith(PYTHON_JAX_PREFIX):
        return (
            f"{name} was passed as a Python object, and pes_rl.train can train on that "
            "object again; to name it here, register it with Gymnasium and use gym:ID"
        )
    module, _, kind = name.removeprefix(PYTHON_JAX_PREFIX).partition(":")
    advice = f"--env jax:{module}:{kind} names it if {kind}() makes the same"
    if module == "__main__":
        advice = f"move it to a module, and --env jax:MODULE:{kind} names it"
    return f"{name} was passed to pes_rl.train as a Python object; {advice}"


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
