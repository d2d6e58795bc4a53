"""Requests to stop a run before its budget is spent, agreed on by all processes."""

from pes_rl.runtime.multihost import first_message


class StopRequests:
    """Requests to stop a run, which may come at any time and to any of its processes.

    A request takes effect at the next call of `agree`, so that all processes stop after
    the same update.
    """

    def __init__(self) -> None:
        self._stop_request: str | None = None
        self._interrupt_request: str | None = None
        self._agreed_stop: str | None = None
        self._agreed_interrupt: str | None = None

    def stop(self, reason: str) -> None:
        """Request an end like that at the budget: the run counts as complete."""
        self._stop_request = reason

    def interrupt(self, reason: str) -> None:
        """Request an end that leaves the run incomplete; safe in a signal handler."""
        self._interrupt_request = self._interrupt_request or reason

    @property
    def is_interrupt_requested(self) -> bool:
        """Whether this process was asked to interrupt the run."""
        return self._interrupt_request is not None

    def agree(self, solved: bool) -> bool:
        """Whether the run is to stop, the same answer in all processes; all must call.

        Args:
            solved: Whether this process saw the threshold reached. An evaluation can
                fail in one process alone, so processes may differ in this.
        """
        self._agreed_interrupt = first_message(self._interrupt_request)
        threshold = "the threshold" if solved else None
        self._agreed_stop = first_message(self._stop_request or threshold)
        return self.reason is not None

    @property
    def is_interruption(self) -> bool:
        """Whether the run was interrupted, by the last `agree`."""
        return self._agreed_interrupt is not None

    @property
    def reason(self) -> str | None:
        """Why the run is to stop, by the last `agree`; None where it is not."""
        return self._agreed_interrupt or self._agreed_stop
