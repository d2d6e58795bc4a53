"""What Gymnasium environments raise and return, checked.

Worker processes load this file too; see `worker_program.py`.
"""

import traceback
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces


class BrokenEnvironment(ValueError):
    """An environment raised an error, or returned what Gymnasium's API forbids."""


def raise_broken(what: str, error: BaseException) -> NoReturn:
    """Raise `BrokenEnvironment` for an error that was raised in user code."""
    raise BrokenEnvironment(raised_text(what, error)) from error


def raised_text(what: str, error: BaseException) -> str:
    """Error message for an error that was raised in user code."""
    text = f"{what} raised {describe(error)}"
    if isinstance(error, ValueError) and "values to unpack" in str(error):
        # By a wrapper around it.
        text += (
            "; reset must return (observation, info), and step (observation, reward, "
            "terminated, truncated, info)"
        )
    return text


def describe(error: BaseException) -> str:
    """Type and message of an error, and the line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    text = f"{type(error).__name__}: {error}"
    if not frames:
        return text
    # Code that came pickled has no source.
    last = next((frame for frame in reversed(frames) if frame.line), frames[-1])
    return f"{text} (line {last.lineno} of {last.filename}: {last.line})"


def read_reset(result: Any, space: gymnasium.Space) -> np.ndarray:
    """The first observation in the result of a reset, checked and flattened.

    Raises:
        ValueError: If it is not (observation, info), or the observation does not fit
            the space; the message continues a sentence about the reset.
    """
    return flatten_observation(read_reset_pair(result), space)


def read_reset_pair(result: Any) -> Any:
    """The observation in the result of a reset, which must be (observation, info).

    Raises:
        ValueError: If it is not; the message continues a sentence about the reset.
    """
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError(
            f"returned {_what(result)}; Gymnasium's API is (observation, info)"
        )
    return result[0]


class StepReader:
    """Reads the results of the steps of one environment, each of them checked.

    Args:
        space: The environment's observation space.
    """

    def __init__(self, space: gymnasium.Space) -> None:
        self._space = space
        is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1
        self._shape = space.shape if is_vector else None
        self._dtype = space.dtype

    def __call__(self, result: Any) -> tuple[np.ndarray, float, bool]:
        """(flattened observation, reward, ended) from the result of a step.

        A reward that is NaN, and an observation that is not finite, are returned as
        they are: the engine records the episode as diverged.

        Raises:
            ValueError: If it is not (observation, reward, terminated, truncated, info),
                or one of the first four is not what Gymnasium's API says.
        """
        if type(result) is tuple and len(result) == 5:
            observation, reward, terminated, truncated, _ = result
            # What most environments return needs no more than these; a simple
            # environment takes a few microseconds a step, and so do all the checks.
            if (
                isinstance(reward, float)
                and type(terminated) is bool
                and type(truncated) is bool
                and type(observation) is np.ndarray
                and observation.dtype is self._dtype
                and observation.shape == self._shape
            ):
                return observation, reward, terminated or truncated
        observation, reward, ended = read_outcome(result)
        return flatten_observation(observation, self._space), reward, ended


def read_outcome(result: Any) -> tuple[Any, float, bool]:
    """(observation, reward, ended) from the result of a step, the last two checked.

    Raises:
        ValueError: As by `StepReader`, except for the observation.
    """
    if not isinstance(result, tuple | list) or len(result) != 5:
        raise ValueError(
            f"returned {_what(result)}; Gymnasium's API is (observation, reward, "
            "terminated, truncated, info)"
        )
    observation, reward, terminated, truncated, _ = result
    if type(reward) is not float and not _is_scalar(reward, "biuf"):
        raise ValueError(f"returned the reward {reward!r}; it must be one number")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if type(flag) is not bool and not _is_scalar(flag, "biu"):
            raise ValueError(f"returned {name}={flag!r}; it must be True or False")
    return observation, float(reward), bool(terminated or truncated)


def flatten_observation(observation: Any, space: gymnasium.Space) -> np.ndarray:
    """One observation as a vector, by Gymnasium's `flatten`.

    Raises:
        ValueError: If it does not fit the space; the message continues a sentence about
            what returned it.
    """
    if isinstance(space, spaces.Box):
        array = read_observation(observation, space.shape, space.dtype)
        # A vector is used as it is, even if its type is finer than the space's.
        return array if array.ndim == 1 else array.astype(space.dtype).ravel()
    try:
        flat: Any = spaces.flatten(space, observation)
    except Exception as error:
        reason = f"returned an observation that cannot be read: {describe(error)}"
        raise ValueError(reason) from None
    return read_observation(flat, (spaces.flatdim(space),), flat.dtype)


_KINDS = {"b": 0, "u": 1, "i": 1, "f": 2}
"""Kinds of NumPy's number types; each can hold the numbers of those before it."""


def read_observation(observation: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An observation, or a batch of them, as an array of this shape.

    Raises:
        ValueError: If its shape is another one, or its numbers are of a kind that the
            type does not hold: fractions in a space of integers, complex numbers, text.
    """
    array = np.asarray(observation)
    if array.shape != shape:
        raise ValueError(
            f"returned an observation of shape {array.shape}; its observation space "
            f"has shape {shape}"
        )
    kind = _KINDS.get(array.dtype.kind)
    if kind is None or kind > _KINDS.get(np.dtype(dtype).kind, 2):
        raise ValueError(
            f"returned an observation of type {array.dtype}; its observation space has "
            f"{dtype}"
        )
    return array


def _is_scalar(value: Any, kinds: str) -> bool:
    if value is None or isinstance(value, tuple | list):
        return False
    array = np.asarray(value)
    return array.shape == () and array.dtype.kind in kinds


def _what(result: Any) -> str:
    if isinstance(result, tuple | list):
        return f"{len(result)} values"
    return f"one {type(result).__name__}"
