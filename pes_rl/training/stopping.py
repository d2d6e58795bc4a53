"""What ends a run before its budget is spent, agreed on by all of its processes."""

from pes_rl.runtime.multihost import first_said


class Ending:
    """Requests to end a run, which may come at any moment, to any of its processes.

    A request counts from the next agreement on, so that all processes end after the
    same update.
    """

    def __init__(self) -> None:
        self._asked_to_stop: str | None = None
        self._asked_to_break_off: str | None = None
        self._stopped_by: str | None = None
        self._interrupted_by: str | None = None

    def stop(self, reason: str) -> None:
        """Ask for an end like that at the budget."""
        self._asked_to_stop = reason

    def interrupt(self, reason: str) -> None:
        """Ask for an end that leaves the run incomplete; safe in a signal handler."""
        self._asked_to_break_off = reason

    def agree(self, solved: bool) -> bool:
        """Whether any process was asked, or has `solved` what was to be; all must call.

        An evaluation can fail in one process alone, so that the others do not know.
        """
        self._interrupted_by = first_said(self._asked_to_break_off)
        threshold = "the threshold" if solved else None
        self._stopped_by = first_said(self._asked_to_stop or threshold)
        return self.by is not None

    @property
    def is_interruption(self) -> bool:
        """Whether the run is to be left incomplete, by the last agreement."""
        return self._interrupted_by is not None

    @property
    def by(self) -> str | None:
        """The reason, by the last agreement; None where there is none."""
        return self._interrupted_by or self._stopped_by
