"""The spaces of a Gymnasium environment as those of `pes_rl.envs.spaces`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from pes_rl.envs.spaces import (
    ActionSpace,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    Spaces,
    Tuple,
)


def describe_spaces(observations: gymnasium.Space, actions: gymnasium.Space) -> Spaces:
    """The spaces, None where a policy takes or returns the vector as it is.

    Raises:
        ValueError: If a key of a `Dict` is neither a text nor a whole number.
    """
    own: Any = describe_actions(actions)
    is_row = len(own.shape) == 1 if isinstance(own, Box) else False
    return Spaces(
        None if _is_vector(observations) else describe(observations),
        None if is_row and own.dtype == "float32" else own,
    )


def describe_actions(space: gymnasium.Space) -> ActionSpace:
    """A space that `check_actions` has accepted."""
    own = describe(space)
    assert not isinstance(own, Dict | Tuple)
    return own


def describe(space: gymnasium.Space) -> Space:
    """A space whose parts `check_observations` or `check_actions` has accepted.

    Raises:
        ValueError: If a key of a `Dict` is neither a text nor a whole number.
    """
    match space:
        case spaces.Box():
            return Box(_whole(space.shape), str(space.dtype))
        case spaces.Discrete():
            return Discrete(int(space.n), int(space.start))
        case spaces.MultiDiscrete():
            nvec, start = _whole(space.nvec.ravel()), _whole(space.start.ravel())
            return MultiDiscrete(_whole(space.shape), nvec, start, str(space.dtype))
        case spaces.MultiBinary():
            return MultiBinary(_whole(space.shape))
        case spaces.Tuple():
            return Tuple(tuple(describe(part) for part in space.spaces))
        case spaces.Dict():
            keys: tuple[Any, ...] = tuple(space.spaces)
            for key in keys:
                if type(key) not in (str, int):
                    raise ValueError(
                        f"the key {key!r} of a Dict cannot be saved with a policy; use "
                        "a text or a whole number"
                    )
            return Dict(keys, tuple(describe(space.spaces[key]) for key in keys))
    raise AssertionError(f"{space} was checked before")


def action_bounds(space: gymnasium.Space) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest outputs of a policy, infinite where they are no action."""
    if isinstance(space, spaces.Box):
        return space.low.ravel(), space.high.ravel()
    bound = np.full(describe_actions(space).size, np.inf)
    return -bound, bound


def idle_actions(space: gymnasium.Space, count: int) -> np.ndarray:
    """One legal action, `count` times: that of outputs nearest to 0."""
    low, high = action_bounds(space)
    outputs = np.clip(np.zeros_like(low), low, high)
    actions: Any = describe_actions(space).to_action(np.tile(outputs, (count, 1)))
    return actions.astype(space.dtype, copy=False)


def _is_vector(space: gymnasium.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def _whole(numbers: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)
