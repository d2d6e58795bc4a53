"""Tracking: what TensorBoard gets, sent to Weights & Biases or Trackio as well."""

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pes_rl.graphics.animations import write_gif

_PROJECT = "pes_rl"
_FILE = "tracking.json"
_NAMES = {"wandb": "Weights & Biases", "trackio": "Trackio"}


class Tracker:
    """A run in a tracking service, under the keys of TensorBoard and at its steps.

    Both services have one interface: `init`, `run.log(values, step)`, `run.finish`. The
    identity of the run is kept in `tracking.json` in its folder, so that a resumed run
    continues in the service too. No method raises: a failure is reported once, and
    training continues.

    Args:
        kind: wandb or trackio; with None, all methods do nothing.
        report: Called with each line about a failure.

    Raises:
        ValueError: If the package is not installed.
    """

    def __init__(self, kind: str | None, report: Callable[[str], None]) -> None:
        if kind is not None and find_spec(kind) is None:
            raise ValueError(
                f"track={kind} needs {_NAMES[kind]}: pip install 'pes-rl[{kind}]'"
            )
        self._kind, self._report = kind, report
        self._reported: set[str] = set()
        self._module: Any = None
        self._run: Any = None

    def start(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin the run in the service, or continue that of the folder.

        Args:
            folder: Folder of the run.
            settings: Settings of the run, which the service shows.
        """
        if self._kind is not None:
            self._try(lambda: self._start(folder, dict(settings)))

    def _start(self, folder: Path, settings: dict[str, Any]) -> None:
        assert self._kind is not None
        self._module = import_module(self._kind)
        identity = _identity(folder, self._kind)
        options: dict[str, Any] = {
            "project": os.environ.get(f"{self._kind.upper()}_PROJECT", _PROJECT),
            "group": f"{settings['env']} {settings['agent']}",
            "config": settings,
            "resume": "allow",
        }
        if self._kind == "wandb":
            # Otherwise it takes the place of standard output, and of the progress bar.
            console = self._module.Settings(console="off")
            options |= {"name": folder.name, "id": identity, "dir": str(folder)}
            options |= {"settings": console, "reinit": "create_new"}
        else:
            options |= {"name": f"{folder.name}-{identity}", "embed": False}
        # In a context of its own, Trackio does not end another run of this process.
        self._run = Context().run(self._module.init, **options)

    def log(
        self,
        values: Mapping[str, float],
        distributions: Mapping[str, np.ndarray] | None,
        step: int,
    ) -> None:
        """Log the finite ones of `values`, and distributions.

        Args:
            values: By tag.
            distributions: Values of any shape, by tag.
            step: Environment steps so far.
        """
        if self._run is not None:
            self._try(lambda: self._log(values, distributions or {}, step))

    def _log(
        self,
        values: Mapping[str, float],
        distributions: Mapping[str, np.ndarray],
        step: int,
    ) -> None:
        finite: dict[str, Any] = {k: v for k, v in values.items() if np.isfinite(v)}
        for tag, samples in distributions.items():
            if len(samples := samples[np.isfinite(samples)]):
                finite[tag] = self._module.Histogram(samples)
        self._run.log(finite, step=step)

    def log_video(
        self, tag: str, pictures: Sequence[np.ndarray], fps: float, step: int
    ) -> None:
        """Log an animated picture; arguments as those of `EventLog.add_video`."""
        if self._run is not None:
            self._try(lambda: self._log_video(tag, pictures, fps, step))

    def _log_video(
        self, tag: str, pictures: Sequence[np.ndarray], fps: float, step: int
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:  # Both take a copy of the file.
            path = Path(folder) / "video.gif"
            write_gif(path, pictures, fps)
            video = self._module.Video(str(path), format="gif")
            self._run.log({tag: video}, step=step)

    def close(self) -> None:
        """End the run in the service, once all is sent; the second call does nothing.

        Offline, Weights & Biases keeps it in the folder, to be sent by `wandb sync`.
        """
        if self._run is not None:
            run, self._run = self._run, None
            self._try(run.finish)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # Of the network, the service or the disk.
            reason = (str(error).strip() or repr(error)).split("\n")[0]
            if reason not in self._reported:
                self._reported.add(reason)
                self._report(f"{self._kind} failed, training continues: {reason}")


def _identity(folder: Path, kind: str) -> str:
    """The run's name in the service: that of the folder's file, or a new one."""
    path = folder / _FILE
    known = json.loads(path.read_text()) if path.exists() else {}
    if kind not in known:
        known[kind] = uuid.uuid4().hex[:12]
        path.write_text(json.dumps(known) + "\n")
    return known[kind]
