"""Check of an own environment's interface, before anything is compiled."""

import traceback
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ATTRIBUTES = {
    "observation_size": "the length of an observation",
    "action_low": "the lowest action, an array of shape (A,)",
    "action_high": "the highest action, an array of shape (A,)",
    "horizon": "the steps of the longest episode, or None",
    "reset": "reset(key) -> (state, observation)",
    "step": "step(state, action) -> (state, observation, reward, terminated)",
}


def check_interface(environment: Any, name: str) -> None:
    """Check that an object has the interface of `DeviceEnvironment`.

    Its `reset` and `step` are traced by `jax.eval_shape` and not run.

    Args:
        environment: The object.
        name: Its name in the error message.

    Raises:
        ValueError: If something is missing or wrong; the message says what to write.
    """
    for attribute, meaning in _ATTRIBUTES.items():
        if not hasattr(environment, attribute):
            raise ValueError(f"{name} has no {attribute}; give it {meaning}")
    if getattr(environment, "on_device", None) is not True:
        raise ValueError(f"{name} must say that it is written in JAX: on_device = True")
    for attribute in ("observation_size", "horizon"):
        value = getattr(environment, attribute)
        if attribute == "horizon" and value is None:
            continue
        if not _is_whole(value) or value < 1:
            raise ValueError(
                f"{name} has {attribute}={value!r}; it must be a whole number above 0"
            )
    action = jax.ShapeDtypeStruct((_check_bounds(environment, name),), jnp.float32)
    first = trace(f"{name}: reset(key)", environment.reset, jax.random.key(0))
    state = _check_reset(environment, name, first)
    what = f"{name}: step(state, action)"
    after = trace(what, environment.step, state, action)
    _check_step(environment, what, state, first[1], after)


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_bounds(environment: Any, name: str) -> int:
    """The number A of actions."""
    bounds = []
    for attribute in ("action_low", "action_high"):
        value = getattr(environment, attribute)
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            array = np.empty(())
        if array.ndim != 1 or not array.size or np.isnan(array).any():
            raise ValueError(
                f"{name} has {attribute}={value!r}; it must be an array with one "
                "number for each action, such as np.array([-1.0])"
            )
        bounds.append(array)
    low, high = bounds
    if low.shape != high.shape or not (low < high).all():
        raise ValueError(
            f"{name} has action_low={low.tolist()} and action_high={high.tolist()}; "
            "they must be of one length, and each low below its high"
        )
    return low.size


def trace(what: str, function: Any, *arguments: Any) -> Any:
    """Shapes and dtypes that a method returns.

    Args:
        what: The call in the error message, such as "my:Environment: reset(key)".
        function: The method.
        arguments: Its arguments, arrays or their shapes and dtypes.

    Raises:
        ValueError: If JAX cannot trace it; the message names the user's line.
    """
    try:
        return jax.eval_shape(function, *arguments)
    except Exception as error:
        message = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{what} cannot be traced by JAX: {type(error).__name__}: {message}"
            f"{_user_line(error)}"
        ) from error


def _user_line(error: Exception) -> str:
    """The line where the error was raised, in code that is not JAX's."""
    package = str(Path(jax.__file__).parent)
    here = str(Path(__file__))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((package, here)):
            return f" (line {frame.lineno} of {frame.filename}: {frame.line})"
    return ""


def _check_reset(environment: Any, name: str, first: Any) -> Any:
    """The state that `reset` returned."""
    what = f"{name}: reset(key)"
    if not isinstance(first, tuple) or len(first) != 2:
        raise ValueError(
            f"{what} returned {_count(first)}; it must return (state, observation)"
        )
    state, observation = first
    _check_observation(environment, what, observation)
    return state


def _check_observation(environment: Any, what: str, observation: Any) -> None:
    size = environment.observation_size
    shape = getattr(observation, "shape", None)
    if shape is None:
        raise ValueError(
            f"{what} returned a {type(observation).__name__} as observation; it must "
            f"be one array of shape ({size},): concatenate the parts"
        )
    if shape != (size,):
        raise ValueError(
            f"{what} returned an observation of shape {shape}, and observation_size "
            f"is {size}; it must be one vector of that length"
        )
    if not jnp.issubdtype(observation.dtype, jnp.floating):
        raise ValueError(
            f"{what} returned an observation of {observation.dtype}; convert it with "
            ".astype(jnp.float32)"
        )


def _check_step(
    environment: Any, what: str, state: Any, observation: Any, after: Any
) -> None:
    if not isinstance(after, tuple) or len(after) != 4:
        raise ValueError(
            f"{what} returned {_count(after)}; it must return (state, observation, "
            "reward, terminated)"
        )
    next_state, next_observation, reward, terminated = after
    _check_same_state(what, state, next_state)
    _check_observation(environment, what, next_observation)
    if next_observation.dtype != observation.dtype:
        raise ValueError(
            f"{what} returned an observation of {next_observation.dtype}, and reset "
            f"one of {observation.dtype}; make them the same"
        )
    for name, value, kind, example in (
        ("reward", reward, jnp.floating, "jnp.float32(reward)"),
        ("terminated", terminated, jnp.bool_, "jnp.asarray(False)"),
    ):
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
        if shape != () or dtype is None or not jnp.issubdtype(dtype, kind):
            found = f"a {type(value).__name__}" if dtype is None else f"{dtype}{shape}"
            raise ValueError(
                f"{what} returned {found} as {name}; it must be one "
                f"{'bool' if name == 'terminated' else 'float'}, such as {example}"
            )


def _check_same_state(what: str, before: Any, after: Any) -> None:
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(
            f"{what} returned a state of another structure than reset: "
            f"{jax.tree.structure(after)} in place of {jax.tree.structure(before)}"
        )
    paths, _ = jax.tree_util.tree_flatten_with_path(before)
    for (path, one), other in zip(paths, jax.tree.leaves(after), strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise ValueError(
                f"{what} returned state{jax.tree_util.keystr(path)} as "
                f"{other.dtype}{other.shape}, and reset returned "
                f"{one.dtype}{one.shape}; make them the same"
            )


def _count(result: Any) -> str:
    if isinstance(result, tuple | list):
        return f"{len(result)} values"
    return f"one {type(result).__name__}"
