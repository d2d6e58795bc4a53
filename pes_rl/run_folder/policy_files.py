"""Policies as files: arrays and a description in one npz, no code in it.

Nothing here imports JAX, so that a trained policy runs where it is not installed.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pes_rl.envs.spaces import Spaces
from pes_rl.run_folder.npz_fields import check_vector, read_fields, shown, wrong
from pes_rl.run_folder.policy_description import describe, make_policy
from pes_rl.run_folder.space_description import read_spaces, spaces_as_json

FORMAT = 2
"""1 had no mean and std, and is read as one that does not normalise."""


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


@dataclass(frozen=True)
class TrainedParameters:
    """What training on an unrolled problem found.

    Attributes:
        names: Name of each parameter, D in all.
        theta: The parameters. # shape=(D,)
    """

    names: tuple[str, ...]
    theta: np.ndarray


def save_parameters(path: Path, trained: TrainedParameters) -> None:
    """Write the parameters: arrays `theta` and `names`."""
    with path.open("wb") as file:
        np.savez(file, theta=trained.theta, names=np.array(trained.names))


def load_parameters(
    run: str | Path, which: Literal["best", "last"] = "best"
) -> TrainedParameters:
    """Read the parameters that training on an unrolled problem saved.

    Raises:
        ValueError: If there are none, or the file is damaged.
    """
    path = Path(run) / "policy" / f"{which}.npz"
    try:
        fields = _read_all(path, ("names", "theta"))
    except ValueError as error:
        raise ValueError(
            f"{path} holds no parameters of an unrolled problem ({error}); use a run "
            "folder of unrolled:NAME"
        ) from error
    names, theta = fields["names"], fields["theta"]
    if names.dtype.kind != "U" or names.ndim != 1:
        holds = f"has type {names.dtype} and shape {names.shape}"
        raise wrong(path, "names", holds, "hold a list of texts")
    check_vector(path, "theta", theta, len(names), "as many as there are names")
    return TrainedParameters(tuple(names.tolist()), theta)


def save_policy(path: Path, trained: TrainedPolicy) -> None:
    """Write the policy."""
    description = {"format": FORMAT, **describe(trained.policy)}
    if trained.spaces != Spaces():  # for versions before, which know vectors alone
        description["spaces"] = spaces_as_json(trained.spaces)
    with path.open("wb") as file:
        np.savez(
            file,
            theta=trained.theta,
            mean=trained.mean,
            std=trained.std,
            policy=np.array(json.dumps(description)),
        )


def load_policy(
    run: str | Path, which: Literal["best", "last"] = "best", policy: Any = None
) -> TrainedPolicy:
    """Read a policy that training saved. Nothing in the file is executed or imported.

    Args:
        run: A run folder, or an npz file in its `policy/`.
        which: The one with the best evaluation, or the last; for a run folder.
        policy: The network that was trained, where it is one of your own: what was
            given to `pes_rl.train`, since files hold no code.

    Raises:
        ValueError: If there is no policy of this format, the file is damaged, or it
            needs another `policy`.
    """
    path = Path(run)
    if path.suffix != ".npz":
        path = path / "policy" / f"{which}.npz"
    try:
        fields = _read_all(path, ("policy", "theta"), ("mean", "std"))
        description = _read_description(fields["policy"])
    except ValueError as error:
        raise ValueError(
            f"{path} is not a policy saved by pes_rl ({error}); use a run folder, or "
            "policy/best.npz or policy/last.npz of one"
        ) from error
    version = description.pop("format", None)
    if version not in (1, FORMAT):
        raise ValueError(
            f"{path} has policy format {shown(version)}, and this pes_rl reads 1 to "
            f"{FORMAT}; load it with the version of pes_rl that wrote it"
        )
    spaces = description.pop("spaces", None)
    policy, theta = make_policy(path, description, policy), fields["theta"]
    spaces = read_spaces(path, spaces, policy)
    why = "the number of the policy's parameters"
    check_vector(path, "theta", theta, policy.num_parameters, why)
    if version == 1:
        mean = np.zeros(policy.observation_size, np.float32)
        return make_trained(policy, theta, mean, mean + 1, spaces)
    for name in ("mean", "std"):
        if name not in fields:
            raise ValueError(f"{path} has no field {name!r}, which format 2 needs")
        why = "the policy's observation_size"
        check_vector(path, name, fields[name], policy.observation_size, why)
    if not (fields["std"] > 0).all():
        holds = f"holds {fields['std'].min()}"
        raise wrong(path, "std", holds, "hold numbers above 0 alone")
    return make_trained(policy, theta, fields["mean"], fields["std"], spaces)


def _read_all(
    path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    fields = read_fields(path, (*needed, *optional))
    for name in needed:
        if name not in fields:
            raise ValueError(f"it has no field {name!r}")
    return fields


def _read_description(array: np.ndarray) -> dict[str, Any]:
    """The JSON object in the field `policy`."""
    if array.dtype.kind != "U" or array.ndim:
        raise ValueError(
            f"its field 'policy' has type {array.dtype} and shape {array.shape} and "
            "must be one text"
        )
    try:
        description = json.loads(str(array))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its field 'policy' is not JSON: {error}") from error
    if not isinstance(description, dict):
        raise ValueError(
            f"its field 'policy' is {shown(description)} and must be a JSON object"
        )
    return description
