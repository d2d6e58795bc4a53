"""Checkpoints: everything that is needed to resume a run, saved atomically by Orbax.

They are arrays and JSON; loading one executes nothing from the file.
"""

import dataclasses
import mmap
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from pes_rl.learner.learner import TrainState
from pes_rl.training.checksums import (
    arrays_by_name,
    check_arrays,
    check_counters,
    checksums_of,
    describe_counters,
)
from pes_rl.training.counters import Counters

FORMAT = 2
"""Version of the checkpoint format; checkpoints of a later one are refused.

1 had no checksums, and is read without them.
"""

_NEEDED_BYTES = 200 * 2**20
"""Address space that a save needs: Orbax and TensorStore start threads for it.

Where there is less, as under `ulimit -v`, a thread that cannot start ends the process
or leaves it waiting for ever. Measured: 100 MiB are too few for the first save of a
run, and 200 MiB are enough.
"""


class Checkpoints:
    """The checkpoints of one run; the newest few are kept.

    Args:
        folder: Folder of the checkpoints; made if missing.
        keep: Number of checkpoints that are kept.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        # Synchronous: a save takes a tenth of a second, and is complete on return.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False
        )
        self._folder = folder
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "counters": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_handlers=handlers
        )

    def choose(self, resume: Literal["newest"] | int) -> int | None:
        """Environment steps of the checkpoint to resume from; None before the first.

        Raises:
            ValueError: If the checkpoint does not exist, or all of a run are deleted.
        """
        at = self._manager.latest_step() if resume == "newest" else resume
        run, present = self._folder.parent, sorted(self._manager.all_steps())
        # The policy is written after the first checkpoint.
        if at is None and (run / "policy" / "last.npz").exists():
            raise ValueError(
                f"the checkpoints of {run} are gone, so it cannot be resumed; start "
                "the run anew with another --logdir"
            )
        if at is not None and at not in present:
            raise ValueError(f"{self._folder} holds no checkpoint {at}, only {present}")
        return at

    def save(self, state: TrainState, counters: Counters) -> None:
        """Save the state and counters, named by the environment steps so far.

        Raises:
            OSError, ValueError: If it cannot be written; no part of it stays on disk.
            MemoryError: If there is not enough memory for it.
        """
        if counters.timesteps in self._manager.all_steps():
            return
        _check_memory()
        saved = _saveable(state)
        described = describe_counters(counters, FORMAT, checksums_of(saved))
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(saved),
            counters=ocp.args.JsonSave(described),
        )
        try:
            self._manager.save(counters.timesteps, args=arguments)
        except BaseException:
            # On a full disk, the part that was written would keep it full.
            for part in self._folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(part, ignore_errors=True)
            raise

    def restore(self, timesteps: int, like: TrainState) -> tuple[TrainState, Counters]:
        """Read a checkpoint and delete later ones, which the resumed run writes again.

        Args:
            timesteps: The checkpoint's environment steps, as of `choose`.
            like: A state of the same structure, shapes and types; values are not used.

        Raises:
            ValueError: If it cannot be read as such a state; the message names the
                checkpoint before it.
        """
        try:
            counters, checksums = self._read_counters(timesteps)
            saved = _saveable(like)
            tree = self._manager.item_metadata(timesteps)["state"].tree
            _check_structure(tree, saved)
            target = ocp.args.StandardRestore(_present(saved, tree))
            arguments = ocp.args.Composite(state=target)
            read = self._manager.restore(timesteps, args=arguments)["state"]
            saved = _completed(read, saved)
            check_arrays(saved, checksums)
            state = _from_saveable(saved, like)
        except Exception as error:
            # Orbax raises many types; for a user all mean that the file is unusable.
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"checkpoint {timesteps} in {self._folder} cannot be read: {reason}; "
                f"{self._rescue(timesteps)}"
            ) from error
        for later in self._manager.all_steps():
            if later > timesteps:
                self._manager.delete(later)
        return state, counters

    def _read_counters(self, timesteps: int) -> tuple[Counters, dict[str, int]]:
        arguments = ocp.args.Composite(counters=ocp.args.JsonRestore())
        read = self._manager.restore(timesteps, args=arguments)["counters"]
        counters, checksums = check_counters(read, FORMAT)
        if counters.timesteps != timesteps:
            raise ValueError(
                f"its timesteps are {counters.timesteps}, and it is named {timesteps}"
            )
        return counters, checksums

    def _rescue(self, timesteps: int) -> str:
        older = [step for step in self._manager.all_steps() if step < timesteps]
        if not older:
            return "there is none before it, so start the run anew"
        return f"the one before it: --resume {self._folder / str(max(older))}"

    def close(self) -> None:
        """Release the resources of Orbax."""
        self._manager.close()


def _check_structure(tree: Any, like: TrainState) -> None:
    """Compare names, shapes and types of the arrays, for readable errors."""
    saved, needed = _describe(tree), _describe(like)
    for name in sorted(saved.keys() | needed.keys()):
        if saved.get(name) != needed.get(name):
            raise ValueError(
                "it is of other settings or another task "
                f"({name} is {saved.get(name, 'not in it')}, and the run has "
                f"{needed.get(name, 'no such array')})"
            )


def _present(like: Any, tree: Any) -> Any:
    """`like` without the fields that are None and that an older pes_rl did not have.

    A dataclass that lacks fields so is a dict of the others; everything else stays.
    `like` has the arrays of the checkpoint's tree.
    """
    if not dataclasses.is_dataclass(like) or not isinstance(tree, Mapping):
        return like
    parts = {
        field.name: getattr(like, field.name) for field in dataclasses.fields(like)
    }
    if any(part is not None and name not in tree for name, part in parts.items()):
        return like  # A state of the user's own, with fields that are no arrays.
    kept = {n: _present(part, tree[n]) for n, part in parts.items() if n in tree}
    changed = any(kept.get(name) is not part for name, part in parts.items())
    return kept if changed or len(kept) < len(parts) else like


def _completed(read: Any, like: Any) -> Any:
    """The inverse of `_present`."""
    if not isinstance(read, dict) or isinstance(like, dict):
        return read
    parts = {name: _completed(part, getattr(like, name)) for name, part in read.items()}
    return dataclasses.replace(like, **parts)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _saveable(tree: Any) -> Any:
    """The tree without the two kinds of arrays that Orbax cannot save.

    Environments written in JAX may have them in their states: typed random keys, in
    place of which stand their data, and arrays without elements, in place of which
    stands a zero.
    """

    def convert(leaf: Any) -> Any:
        if _is_key(leaf):
            return jax.random.key_data(leaf)
        return leaf if leaf.size else jnp.zeros(1, leaf.dtype)

    return jax.tree.map(convert, tree)


def _from_saveable(saved: Any, like: Any) -> Any:
    """The inverse of `_saveable`, for a tree with the arrays of `like`."""

    def convert(leaf: Any, needed: Any) -> Any:
        if _is_key(needed):
            return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(needed))
        return leaf if needed.size else needed

    return jax.tree.map(convert, saved, like)


def _describe(tree: Any) -> dict[str, str]:
    """Type and shape of each array by its name, such as float32[40, 16]."""
    arrays = arrays_by_name(tree)
    return {n: f"{array.dtype}{list(array.shape)}" for n, array in arrays.items()}


def _check_memory() -> None:
    """Raise `MemoryError` if a save would lack memory; nothing of it is used."""
    try:
        mmap.mmap(-1, _NEEDED_BYTES).close()
    except OSError as error:
        raise MemoryError(
            f"it needs {_NEEDED_BYTES // 2**20} MiB of address space, which the system "
            f"does not give ({error.strerror}; ulimit -v shows a limit)"
        ) from error
