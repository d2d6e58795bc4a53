"""Ctrl-C, SIGTERM and SIGHUP during training: the run is saved and ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from pes_rl.runtime.multihost import is_first
from pes_rl.runtime.output import print_line

if TYPE_CHECKING:
    from pes_rl.training.trainer import Trainer


@contextmanager
def stopping_on_signals(trainer: "Trainer") -> Iterator[None]:
    """Save and end the run on Ctrl-C or SIGTERM; a second signal ends it at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        name = signal.Signals(number).name
        if is_first():
            print_line(f"{name}: the run stops and is saved; once more ends it at once")
        signal.signal(number, signal.SIG_DFL)
        trainer.interrupt(name)
        trainer.stop_evaluation()

    numbers = [signal.SIGINT, signal.SIGTERM]
    # A lost terminal ends a run as SIGTERM does, unless nohup is to keep it alive.
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none.
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        numbers.append(hangup)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
