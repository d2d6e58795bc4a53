"""Checkpoints: all that a run needs to go on, saved atomically by Orbax.

They are arrays and JSON; loading one executes nothing from the file.
"""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from pes_rl.learner import TrainState


class Checkpoints:
    """The checkpoints of one run, the newest few of them kept.

    Args:
        folder: Where they lie; made if missing.
        keep: How many are kept.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        # Synchronous: a save takes a tenth of a second and is done when it returns.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False
        )
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, timesteps: int, state: TrainState, counters: dict[str, Any]) -> None:
        """Save the run's state and its counters (JSON) under `timesteps`."""
        if timesteps in self._manager.all_steps():
            return
        self._manager.save(
            timesteps,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                counters=ocp.args.JsonSave(counters),
            ),
        )

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint.

        Args:
            like: A state of the same structure, shapes and types, values unused.

        Raises:
            ValueError: If there is none, or it cannot be read as such a state.
        """
        timesteps = self._manager.latest_step()
        if timesteps is None:
            raise ValueError(
                f"{self._folder} holds no checkpoint to resume from; start the run anew"
            )
        try:
            restored = self._manager.restore(
                timesteps,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like),
                    counters=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:
            # Orbax raises many kinds; to a user all mean that the file is no use.
            older = [step for step in self._manager.all_steps() if step != timesteps]
            rescue = (
                f"delete the folder {timesteps} in it to resume from {max(older)}"
                if older
                else "start the run anew"
            )
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"checkpoint {timesteps} in {self._folder} cannot be read "
                f"({reason}); {rescue}"
            ) from error
        return restored["state"], restored["counters"]

    def close(self) -> None:
        """Release what Orbax holds."""
        self._manager.close()
