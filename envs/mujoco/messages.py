"""MuJoCo's warnings as messages of Python's `logging`."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

import contextlib
import logging
from collections.abc import Iterator

import mujoco

_log = logging.getLogger(__name__)

_EXPECTED = ("simulation is unstable", "is deprecated")
"""Parts of warnings about what is known: a simulation that diverges, which the engine
counts, and the models, which are Gymnasium's and Brax's."""


@contextlib.contextmanager
def warnings_logged() -> Iterator[None]:
    """Context in which MuJoCo logs its warnings: expected ones for debugging.

    By itself it prints each to standard error, once for every simulation, and appends
    it to a file MUJOCO_LOG.TXT in the current folder. A handler that the caller has set
    is back afterwards.
    """
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_log_warning)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _log_warning(text: str) -> None:
    expected = any(part in text for part in _EXPECTED)
    level = logging.DEBUG if expected else logging.WARNING
    _log.log(level, "MuJoCo: %s", text.strip())
