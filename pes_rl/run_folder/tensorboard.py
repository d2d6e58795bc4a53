"""TensorBoard event files, written by the thread that trains.

tensorboardX's own writer hands events to a thread, which dies on a full disk; the queue
to it then fills, and training would wait on it for ever. Here an error is raised to the
caller, and the next call begins a new file, for the old one may end in half a record.
"""

# The generated protocol buffers have no stubs.
# pyright: reportAttributeAccessIssue=false

import contextlib
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from pes_rl.graphics.animations import write_gif

_FLUSH_SECONDS = 10.0

_PLUGINS = {
    "simple_value": ("scalars", 1),
    "histo": ("histograms", 2),
    "image": ("images", 3),
}
"""TensorBoard's plugin for each kind of value, and the number of its `data_class`."""

_FIRST_SETTINGS = ("agent", "learning_rate", "sigma", "truncation_length", "num_pairs")
"""The first columns of the hyperparameter tab."""


class EventLog:
    """A run's event files.

    Args:
        folder: Where they lie; it must exist.
        resume_at: Environment steps from which a run is resumed: what earlier files
            hold after them is not shown. None for a new run.
        descriptions: Texts that TensorBoard shows with the tags that they belong to.

    Raises:
        OSError: If none can be written; so do all methods.
    """

    def __init__(
        self,
        folder: Path,
        resume_at: int | None = None,
        descriptions: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._descriptions = dict(descriptions or {})
        self._files = 0
        self._writer: EventsWriter | None = None
        self._flushed = 0.0
        first = Event(summary=summary.Summary())
        if resume_at is not None:
            begins = SessionLog(status=SessionLog.START)
            first = Event(session_log=begins, step=resume_at + 1)
        self._write(first)

    def add_scalars(self, values: dict[str, float], step: int) -> None:
        """Log the finite ones of `values`, by their tags."""
        finite = (
            summary.Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if np.isfinite(value)
        )
        self._add(summary.Summary(value=finite), step)

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Log the distribution of the finite ones of `values`."""
        values = values[np.isfinite(values)]
        if len(values):
            self._add(summary.histogram(tag, values, bins="doane"), step)

    def add_video(
        self, tag: str, pictures: Sequence[np.ndarray], fps: float, step: int
    ) -> None:
        """Log an animated picture, as a GIF among the images, in tensorboardX's way.

        Its own function needs moviepy, for no more than the GIF.

        Args:
            tag: Its name.
            pictures: At least one. # shape=(height, width, 3) each, dtype=uint8
            fps: Pictures a second, at most 50.
            step: When.
        """
        gif = io.BytesIO()
        write_gif(gif, pictures, fps)
        height, width, channels = pictures[0].shape
        image = summary.Summary.Image(
            height=height,
            width=width,
            colorspace=channels,
            encoded_image_string=gif.getvalue(),
        )
        value = summary.Summary.Value(tag=tag, image=image)
        self._add(summary.Summary(value=[value]), step)

    def add_hyperparameters(
        self, settings: dict[str, Any], metrics: dict[str, float]
    ) -> None:
        """Fill the run's line in the hyperparameter tab.

        tensorboardX's `add_hparams` would make a run folder of its own for it.

        Args:
            settings: By name; what is neither a number nor a text is shown as text.
                Those that a gradient estimator is judged by come first.
            metrics: Results by tag, which are logged as scalars too.
        """
        names = dict.fromkeys((*_FIRST_SETTINGS, *settings))
        ordered = {name: settings[name] for name in names if name in settings}
        shown = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in ordered.items()
            if value is not None
        }
        for message in summary.hparams(shown, metrics):
            self._add(message, 0)
        self.add_scalars(metrics, 0)

    def close(self) -> None:
        """Write what is still held back, and close."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                writer.close()
            finally:  # tensorboardX leaves its file open where the disk is full.
                writer._py_recordio_writer.close()

    def _add(self, message: Any, step: int) -> None:
        for value in message.value:
            if value.tag in self._descriptions:
                _describe(value, self._descriptions[value.tag])
        self._write(Event(summary=message, step=step))
        for value in message.value:  # Only the first value of a tag has to carry it.
            self._descriptions.pop(value.tag, None)

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        try:
            if self._writer is None:
                self._files += 1
                prefix = str(self._folder / "events")
                self._writer = EventsWriter(prefix, f".{self._files}")
            self._writer.write_event(event)
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError:
            with contextlib.suppress(OSError):
                self.close()
            raise


def _describe(value: Any, description: str) -> None:
    """Give a value the metadata with which TensorBoard shows a description."""
    plugin, data_class = _PLUGINS[value.WhichOneof("value")]
    value.metadata.summary_description = description
    value.metadata.plugin_data.plugin_name = plugin
    # Field 4, `data_class`, which tensorboardX's older protocol does not name; without
    # it TensorBoard drops the description.
    value.metadata.MergeFromString(bytes([4 << 3, data_class]))
