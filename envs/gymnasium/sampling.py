"""Random discrete actions whose randomness belongs to the episode."""

import numpy as np

from pes_rl.envs.spaces import ActionSpace, Box


class ActionNoise:
    """Random numbers which, added to a policy's outputs, sample discrete actions.

    The greatest of outputs o_i + g_i with independent standard Gumbel numbers g_i is
    choice i with the probability exp(o_i) / sum_j exp(o_j) (the Gumbel-max trick); for
    0 or 1 the numbers are logistic. The numbers of the k-th step of an episode are the
    k-th draw of a generator that is seeded with the episode's key. So the members of a
    pair get the same ones, and the same key gives the same run.

    Raises:
        ValueError: If actions are a `Box`, which has no choices.
    """

    def __init__(self, actions: ActionSpace) -> None:
        if isinstance(actions, Box):
            raise ValueError(
                "sample_actions is for Discrete, MultiDiscrete and MultiBinary "
                f"actions, and these are a Box of shape {actions.shape}; drop it"
            )
        self._actions = actions
        self._generators: dict[int, np.random.Generator] = {}

    def start(self, ids: np.ndarray, keys: np.ndarray) -> None:
        """Begin episodes of the simulations `ids`, with keys [n, 2]."""
        for i, key in zip(ids.tolist(), keys, strict=True):
            self._generators[i] = np.random.default_rng(key)

    def draw(self, ids: np.ndarray) -> np.ndarray:
        """The numbers of the next step of each of them. # shape=(n, A)."""
        return np.stack(
            [self._actions.noise(self._generators[i]) for i in ids.tolist()]
        )
