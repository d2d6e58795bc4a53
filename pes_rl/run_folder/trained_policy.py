"""Trained policies, ready to act: `policy(observation)`.

Nothing here imports JAX, so that a trained policy runs where it is not installed.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pes_rl.envs.spaces import Spaces


@dataclass(frozen=True)
class TrainedPolicy:
    """A policy with its parameters, ready to act.

    NumPy alone computes the action, except that of a network of the user's.

    Attributes:
        policy: The function: a `Policy`, or one made of a network.
        theta: Its parameters. # shape=(D,)
        mean: Taken from observations before the policy sees them; 0 where training did
            not normalise them. # shape=(O,)
        std: What they are divided by then; 1 where it did not. # shape=(O,)
        spaces: The environment's own observations and actions, where they are no
            vectors.

    Example:
        >>> from pes_rl.agents import Policy
        >>> linear = Policy(2, (-1.0,), (1.0,), bias=False)
        >>> theta, mean, std = np.array([0.5, 0.25]), np.zeros(2), np.full(2, 2.0)
        >>> policy = TrainedPolicy(linear, theta, mean, std)
        >>> policy([2.0, 2.0]).tolist()  # in Gymnasium: env.step(policy(observation))
        [0.75]
        >>> policy([[2.0, 2.0], [9.0, 9.0]]).tolist()  # of a batch
        [[0.75], [1.0]]
    """

    policy: Any
    theta: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    spaces: Spaces = field(default_factory=Spaces)

    def __call__(self, observation: Any) -> Any:
        """Action(s) in the environment's own form, for Gymnasium's `step`.

        Args:
            observation: As the environment returns it: a vector of O numbers, or what
                `spaces.observation` says; or N of them, as a `VectorEnv` returns them.

        Returns:
            # shape=(A,) or (N, A), dtype=float32; or what `spaces.action` says: an int
            for a `Discrete` space, an array of the space's shape and type for others.

        Raises:
            ValueError: If the observation is not one of this environment.
        """
        if self.spaces.observation is not None:
            observation = self.spaces.observation.flatten(observation)
        observation = np.asarray(observation, np.float64)
        size = self.policy.observation_size
        if observation.ndim not in (1, 2) or observation.shape[-1] != size:
            raise ValueError(
                f"observation has shape {observation.shape}; this policy takes "
                f"({size},) or (N, {size})"
            )
        theta = self.theta.astype(np.float64)
        if observation.ndim == 2:
            theta = np.broadcast_to(theta, (len(observation), len(theta)))
        outputs = self._next_action(theta, observation)
        if self.spaces.action is not None:
            return self.spaces.action.to_action(outputs)
        return outputs.astype(np.float32)

    def reset(self) -> None:
        """Begin an episode. Only a recurrent policy remembers the one before."""

    def _next_action(self, theta: np.ndarray, observation: np.ndarray) -> np.ndarray:
        return self.act(theta, observation)

    def act(self, theta: Any, observation: Any) -> Any:
        """Same as `Policy.act`, of observation vectors before they are normalised."""
        if not self.mean.any() and (self.std == 1).all():
            # Then JAX compiles for an evaluation what it has compiled in training.
            return self.policy.act(theta, observation)
        return self.policy.act(theta, (observation - self.mean) / self.std)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, None]:
        """Action and state as Stable-Baselines3's `predict`; there is no state.

        Raises:
            ValueError: If a random action is asked for; the policy has none.
        """
        del state, episode_start
        if not deterministic:
            raise ValueError("this policy is deterministic; use deterministic=True")
        return self(observation), None


@dataclass(frozen=True)
class TrainedRecurrentPolicy(TrainedPolicy):
    """A trained policy that remembers its episode: `reset()` where one begins.

    It keeps one carry for each row of observations, from one call to the next.

    Example:
        >>> from pes_rl.agents import GRUPolicy
        >>> gru = GRUPolicy(2, (-1.0,), (1.0,), hidden_sizes=(4,))
        >>> theta = np.full(gru.num_parameters, 0.1)
        >>> policy = TrainedRecurrentPolicy(gru, theta, np.zeros(2), np.ones(2))
        >>> first, second = policy([1.0, 0.0]), policy([1.0, 0.0])
        >>> policy.reset()
        >>> bool(first != second), bool(first == policy([1.0, 0.0]))
        (True, True)
    """

    # A list of no or one carry, because the fields are frozen.
    _carry: list[Any] = field(default_factory=list, init=False, repr=False)

    def reset(self) -> None:
        """Begin an episode: forget all that was observed."""
        self._carry.clear()

    def initial_carry(self) -> Any:
        """The carry at the start of an episode."""
        return self.policy.initial_carry()

    def act(self, theta: Any, carry: Any, observation: Any) -> tuple[Any, Any]:
        """Same as `GRUPolicy.act`, of observation vectors before normalisation."""
        return self.policy.act(theta, carry, (observation - self.mean) / self.std)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Action and carry as `predict` of sb3-contrib's recurrent policies.

        Args:
            observation: # shape=(O,) or (N, O)
            state: The carry that the call before returned; None to begin an episode.
                It replaces the one that the policy remembers.
            episode_start: Where episodes begin, and carries with them.
                # shape=() or (N,), dtype=bool
            deterministic: Must be True.

        Raises:
            ValueError: If a random action is asked for; the policy has none.
        """
        if self.spaces.observation is not None:
            observation = self.spaces.observation.flatten(observation)
        batch = np.shape(observation)[:-1]
        first = self._first_carry(batch)
        if state is None:
            state = first
        elif episode_start is not None:
            begins = np.asarray(episode_start, bool).reshape(batch)

            def choose(new: np.ndarray, old: np.ndarray) -> np.ndarray:
                mask = begins.reshape(batch + (1,) * (new.ndim - len(batch)))
                return np.where(mask, new, old)

            state = _map(choose, first, state)
        self._carry[:] = [state]
        return super().predict(observation, deterministic=deterministic)[0], (
            self._carry[0]
        )

    def _next_action(self, theta: np.ndarray, observation: np.ndarray) -> np.ndarray:
        first = self._first_carry(observation.shape[:-1])
        carry = self._carry[0] if self._carry else first
        expected, found = ([leaf.shape for leaf in _leaves(c)] for c in (first, carry))
        if expected != found:
            raise ValueError(
                f"the policy remembers carries of shapes {found}, and for observations "
                f"of shape {observation.shape} they are {expected}; call reset() first"
            )
        after, action = self.act(theta, carry, observation)
        # In the precision of training.
        self._carry[:] = [_map(lambda new, old: new.astype(old.dtype), after, first)]
        return action

    def _first_carry(self, batch: tuple[int, ...]) -> Any:
        return _map(
            lambda leaf: np.broadcast_to(leaf, (*batch, *np.shape(leaf))),
            self.initial_carry(),
        )


def make_trained(
    policy: Any,
    theta: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    spaces: Spaces | None = None,
) -> TrainedPolicy:
    """The trained policy, recurrent where the policy has a carry."""
    is_recurrent = hasattr(policy, "initial_carry")
    kind = TrainedRecurrentPolicy if is_recurrent else TrainedPolicy
    return kind(policy, theta, mean, std, spaces or Spaces())


def _map(function: Any, *trees: Any) -> Any:
    """`jax.tree.map`, without JAX for the one array that built-in policies carry."""
    if isinstance(trees[0], np.ndarray):
        return function(*trees)
    import jax

    return jax.tree.map(function, *trees)


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    _map(found.append, tree)
    return found
