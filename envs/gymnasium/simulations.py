"""Gymnasium simulations stepped one after another, in this process or in a worker.

This file is also the program of a worker process. It imports nothing from `pes_rl`, so
a worker does not load JAX: it starts fast and needs little more memory than the
simulator.
"""

import contextlib
import importlib
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import cloudpickle
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec

Maker = str | EnvSpec | Callable[..., gymnasium.Env]


class BrokenEnvironment(ValueError):
    """An environment raised an error, or returned what Gymnasium's API forbids."""


class Simulations:
    """A `Vectorization` of `count` environment objects, stepped one after another.

    What each reset and step returns is checked, see `read_reset` and `read_step`.

    Args:
        maker: Makes an environment.
        env_kwargs: Its keyword arguments.
        count: Number of environments.
        name: Name of the environment in error messages.
        package: Package to import first; it may register environments.

    Attributes:
        observations: Observation space of one simulation.
        actions: Its action space.
        observation_size: Length O of an observation flattened to one vector.

    Raises:
        ValueError: For the same reasons as in `make_env`.
        BrokenEnvironment: By `reset` and `step`, if the environment raises an error or
            returns what Gymnasium's API forbids.
    """

    idle_steps = 0

    def __init__(
        self,
        maker: Maker,
        env_kwargs: dict[str, Any],
        count: int,
        name: str,
        package: str | None = None,
    ) -> None:
        if package is not None:
            importlib.import_module(package)
        self._name = name
        self._envs = [make_env(maker, env_kwargs) for _ in range(count)]
        self._steps = [0] * count  # of the current episodes
        self.observations: gymnasium.Space = self._envs[0].observation_space
        self.actions: gymnasium.Space = self._envs[0].action_space
        self.observation_size = spaces.flatdim(self.observations)
        for env in self._envs:
            space = env.observation_space
            if spaces.flatdim(space) != self.observation_size:
                raise ValueError(
                    f"{name} has observations of shape {self.observations.shape} when "
                    f"it is made once and {space.shape} another time"
                )

    @property
    def time_limit(self) -> int | None:
        """The environment's own time limit, in steps; None without one."""
        spec = self._envs[0].spec
        return None if spec is None else spec.max_episode_steps

    def reset(self, seeds: np.ndarray, ids: np.ndarray) -> np.ndarray:
        observations = np.empty((len(ids), self.observation_size))
        for k, i in enumerate(ids):
            seed = int(seeds[k])
            self._steps[i] = 0
            try:
                result = self._envs[i].reset(seed=seed)
            except (Exception, SystemExit) as error:
                raise_broken(f"{self._name}: reset(seed={seed})", error)
            try:
                observations[k] = read_reset(result, self.observations)
            except ValueError as error:
                raise BrokenEnvironment(
                    f"{self._name}: reset(seed={seed}) {error}"
                ) from None
        return observations

    def step(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        observations = np.empty((len(ids), self.observation_size))
        rewards, ended = np.empty(len(ids)), np.empty(len(ids), bool)
        for k, i in enumerate(ids):
            self._steps[i] += 1
            try:
                result = self._envs[i].step(actions[k])
            except (Exception, SystemExit) as error:
                raise_broken(f"{self._name}: step {self._steps[i]}", error)
            try:
                observations[k], rewards[k], ended[k] = read_step(
                    result, self.observations
                )
            except ValueError as error:
                raise BrokenEnvironment(
                    f"{self._name}: step {self._steps[i]} of an episode {error}"
                ) from None
        return observations, rewards, ended

    def close(self) -> None:
        for env in self._envs:
            # All results are there, and the others must be closed too.
            with contextlib.suppress(Exception, SystemExit):
                env.close()


def raise_broken(what: str, error: BaseException) -> NoReturn:
    """Raise `BrokenEnvironment` for an error that was raised in user code."""
    text = f"{what} raised {describe(error)}"
    if isinstance(error, ValueError) and "values to unpack" in str(error):
        # By a wrapper around it.
        text += (
            "; reset must return (observation, info), and step (observation, reward, "
            "terminated, truncated, info)"
        )
    raise BrokenEnvironment(text) from error


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
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError(
            f"returned {_what(result)}; Gymnasium's API is (observation, info)"
        )
    return flatten_observation(result[0], space)


def read_step(result: Any, space: gymnasium.Space) -> tuple[np.ndarray, float, bool]:
    """(flattened observation, reward, ended) from the result of a step, checked.

    A reward that is NaN, and an observation that is not finite, are returned as they
    are: the engine records the episode as diverged.

    Raises:
        ValueError: If it is not (observation, reward, terminated, truncated, info), or
            one of the first four is not what Gymnasium's API says.
    """
    if not isinstance(result, tuple | list) or len(result) != 5:
        raise ValueError(
            f"returned {_what(result)}; Gymnasium's API is (observation, reward, "
            "terminated, truncated, info)"
        )
    observation, reward, terminated, truncated, _ = result
    row = flatten_observation(observation, space)
    if type(reward) is not float and not _is_scalar(reward, "biuf"):
        raise ValueError(f"returned the reward {reward!r}; it must be one number")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if type(flag) is not bool and not _is_scalar(flag, "biu"):
            raise ValueError(f"returned {name}={flag!r}; it must be True or False")
    return row, float(reward), bool(terminated or truncated)


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


def maker_name(maker: Maker) -> str:
    """Name of the environment that `maker` makes, for messages."""
    if isinstance(maker, str):
        return maker
    if isinstance(maker, EnvSpec):
        return maker.id
    return getattr(maker, "__qualname__", None) or repr(maker)


def find_spec(name: str) -> tuple[EnvSpec, str | None]:
    """The specification of a Gymnasium id, and the package that registers it.

    `gymnasium.spec` knows neither "package:Id" nor ids without a version, which
    `gymnasium.make` accepts.

    Raises:
        gymnasium.error.Error, ImportError: As by `gymnasium.make`.
    """
    package, _, env_id = name.rpartition(":")
    if package:
        importlib.import_module(package)
    namespace, base, version = registration.parse_env_id(env_id)
    if version is None:
        version = registration.find_highest_version(namespace, base)
        env_id = registration.get_env_id(namespace, base, version)
    return gymnasium.spec(env_id), package or None


def make_env(maker: Maker, env_kwargs: dict[str, Any]) -> gymnasium.Env:
    """Make an environment that a policy can act in.

    Raises:
        ValueError: If making it raises any error, a policy cannot return its actions,
            or its observations cannot be one vector.
    """
    if callable(maker) and not isinstance(maker, EnvSpec):
        try:
            env = maker(**env_kwargs)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{maker_name(maker)} cannot be made: {describe(error)}"
            ) from error
        if not isinstance(env, gymnasium.Env):
            raise ValueError(
                f"{maker!r} made a {type(env).__name__}; it must make one "
                "gymnasium.Env, as a class derived from it does"
            )
    else:
        try:
            env = gymnasium.make(maker, **env_kwargs)
        except (Exception, SystemExit) as error:
            known = isinstance(error, gymnasium.error.Error)
            raise ValueError(
                f"Gymnasium cannot make {maker_name(maker)!r}: "
                f"{error if known else describe(error)}"
            ) from error
    check_actions(getattr(env, "action_space", None))
    check_observations(getattr(env, "observation_space", None))
    return env


def check_actions(space: gymnasium.Space | None) -> None:
    """Raise `ValueError` if a policy cannot return the actions of this space."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"actions are {space}, but policies here return Box, Discrete, "
            "MultiDiscrete or MultiBinary; wrap the environment with "
            "gymnasium.wrappers.TransformAction, with a function that makes its action "
            "of one of them"
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"actions are {space}, whole numbers, but a Box of actions here is "
            "continuous; wrap the environment with gymnasium.wrappers.TransformAction, "
            "with a float Box and a function that rounds, or with a MultiDiscrete"
        )
    if not space.shape or 0 in space.shape:
        raise ValueError(
            f"actions are {space} of shape {space.shape}, but policies here return a "
            "vector of at least one number; wrap the environment with "
            "gymnasium.wrappers.TransformAction, with a Box of shape (1,)"
        )


def check_observations(space: gymnasium.Space | None) -> None:
    """Raise `ValueError` if observations of this space cannot become one vector."""
    parts: list[Any] = [space]
    for part in parts:  # grows while it is walked through
        if isinstance(part, spaces.Dict | spaces.Tuple):
            inside = part.spaces
            parts += inside.values() if isinstance(inside, dict) else inside
        elif not isinstance(part, _FLATTENED):
            raise ValueError(
                f"observations are {space}, which cannot be one vector because of "
                f"{part}; wrap the environment with "
                "gymnasium.wrappers.TransformObservation, with a function that turns "
                "it into a Box, or leaves it out"
            )


_FLATTENED = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Spaces of observations that become vectors, beside `Dict` and `Tuple` of them."""


def serve(connection: Connection) -> None:
    """Main loop of a worker process: answer calls until the parent disconnects.

    The first message is the parent's `sys.path`. Every further one is a cloudpickled
    (method, arguments), the first of them "make" with the arguments of `Simulations`;
    it returns the length of an observation. Each answer is (True, result) or (False,
    (message, traceback)).
    """
    # The parent handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = connection.recv()
    simulations: Simulations | None = None
    try:
        while True:
            message = connection.recv_bytes()
            try:
                name, arguments = cloudpickle.loads(message)
                if name == "make":
                    simulations = Simulations(*arguments)
                    result = simulations.observation_size
                else:
                    result = getattr(simulations, name)(*arguments)
            except (Exception, SystemExit) as error:
                known = isinstance(error, ValueError)
                text = str(error) if known else describe(error)
                connection.send((False, (text, traceback.format_exc())))
            else:
                connection.send((True, result))
    except (EOFError, ConnectionError):
        if simulations is not None:
            simulations.close()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
