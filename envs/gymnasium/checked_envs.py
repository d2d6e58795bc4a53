"""The environments of a `SyncVectorEnv`, with their results checked."""

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

import gymnasium
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from pes_rl.envs.gymnasium.results import (
    BrokenEnvironment,
    raised_text,
    read_observation,
    read_outcome,
    read_reset_pair,
)


class CheckedEnvs:
    """The environments of a `SyncVectorEnv`, whose results are checked at every step.

    A `SyncVectorEnv` turns rewards and flags that are none, such as None or a list of
    one, into numbers. So the checks come before: during a call of the `SyncVectorEnv`
    its environments are replaced by ones that check, and are its own again afterwards.

    Args:
        envs: The `SyncVectorEnv`.
        name: Its name in error messages.
    """

    def __init__(self, envs: SyncVectorEnv, name: str) -> None:
        self._envs = envs
        self._checked: Any = [_CheckedEnv(env, name) for env in envs.envs]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Context of a call of the `SyncVectorEnv`.

        Raises:
            BrokenEnvironment: By `reset` and `step` of the environments, if they raise
                an error or return what Gymnasium's API forbids.
        """
        own, self._envs.envs = self._envs.envs, self._checked
        try:
            yield
        finally:
            self._envs.envs = own


class _CheckedEnv:
    """One environment; `reset` and `step` return what it returns."""

    def __init__(self, env: gymnasium.Env, name: str) -> None:
        self._env, self._name = env, name
        self._steps = 0  # of the current episode
        # What is flattened is checked when it is.
        space: Any = env.observation_space
        self._space = space if isinstance(space, spaces.Box) else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._steps = 0
        try:
            result = self._env.reset(seed=seed, options=options)
        except (Exception, SystemExit) as error:
            self._refuse(raised_text(f"reset(seed={seed})", error))
        try:
            self._check_observation(read_reset_pair(result))
        except ValueError as error:
            self._refuse(f"reset(seed={seed}) {error}")
        return result

    def step(self, action: Any) -> Any:
        self._steps += 1
        try:
            result = self._env.step(action)
        except (Exception, SystemExit) as error:
            self._refuse(raised_text(f"step {self._steps}", error))
        try:
            self._check_observation(read_outcome(result)[0])
        except ValueError as error:
            self._refuse(f"step {self._steps} of an episode {error}")
        return result

    def _check_observation(self, observation: Any) -> None:
        if self._space is not None:
            read_observation(observation, self._space.shape, self._space.dtype)

    def _refuse(self, text: str) -> NoReturn:
        raise BrokenEnvironment(f"{self._name}: {text}") from None
