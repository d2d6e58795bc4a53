"""Policies as files: arrays and a description in one npz, no code in it.

Nothing here imports JAX, so that a trained policy runs where it is not installed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pes_rl.envs.spaces import Spaces
from pes_rl.run_folder.npz_fields import check_vector, read_fields, shown, wrong
from pes_rl.run_folder.policy_description import describe, make_policy
from pes_rl.run_folder.space_description import read_spaces, spaces_as_json
from pes_rl.run_folder.trained_policy import TrainedPolicy, make_trained

FORMAT = 2
"""1 had no mean and std, and is read as one that does not normalise."""


@dataclass(frozen=True)
class TrainedParameters:
    """What training on an unrolled problem found.

    Attributes:
        names: Name of each parameter, D in all.
        theta: The parameters. # shape=(D,)
    """

    names: tuple[str, ...]
    theta: np.ndarray


def save_parameters(
    path: Path,
    trained: TrainedParameters,
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Write the parameters: arrays `theta` and `names`.

    Args:
        path: The file.
        trained: The parameters.
        environment: Settings that name the problem, for `read_environment`.
    """
    with path.open("wb") as file:
        np.savez(
            file,
            theta=trained.theta,
            names=np.array(trained.names),
            environment=np.array(json.dumps(environment or {})),
        )


def load_parameters(
    run: str | Path, which: Literal["best", "last"] = "best"
) -> TrainedParameters:
    """Read the parameters that training on an unrolled problem saved.

    Args:
        run: A run folder, or an npz file of its `policy/`.
        which: Those with the best evaluation, or the last; for a run folder.

    Raises:
        ValueError: If there are none, or the file is damaged.
    """
    path = _file_of(run, which)
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


def save_policy(
    path: Path,
    trained: TrainedPolicy,
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Write the policy.

    Args:
        path: The file.
        trained: The policy.
        environment: Settings that name where it was trained, for `read_environment`.
    """
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
            environment=np.array(json.dumps(environment or {})),
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

    Example:
        >>> import pes_rl
        >>> policy = pes_rl.load_policy("my_run")
        >>> policy([0.0, 0.1, 0.0, 0.0]).shape  # the action
        (1,)
    """
    path = _file_of(run, which)
    try:
        fields = _read_all(path, ("policy", "theta"), ("mean", "std"))
        description = _read_object("policy", fields["policy"])
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


def read_environment(path: Path) -> dict[str, Any]:
    """The settings that name the environment of a policy or of parameters.

    Args:
        path: The npz file.

    Returns:
        Settings of `TrainConfig` by their names, `env` among them; none where the file
        does not say, as those of older versions.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        fields = _read_all(path, (), ("environment",))
        if "environment" not in fields:
            return {}
        return _read_object("environment", fields["environment"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _file_of(run: str | Path, which: str) -> Path:
    """The npz file itself, or that of a run folder."""
    path = Path(run)
    return path if path.suffix == ".npz" else path / "policy" / f"{which}.npz"


def _read_object(name: str, array: np.ndarray) -> dict[str, Any]:
    """The JSON object in the field `name`."""
    if array.dtype.kind != "U" or array.ndim:
        raise ValueError(
            f"its field {name!r} has type {array.dtype} and shape {array.shape} and "
            "must be one text"
        )
    try:
        content = json.loads(str(array))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its field {name!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"its field {name!r} is {shown(content)} and must be a JSON object"
        )
    return content
