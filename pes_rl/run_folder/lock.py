"""The lock of a run's folder: one process writes it at a time."""

import contextlib
import os
import socket
from pathlib import Path
from typing import IO

from pes_rl.runtime.output import print_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = ".lock"


class FolderLock:
    """An exclusive lock on a run's folder, held until `release`.

    The operating system releases it when the process ends, however it ends. It is an
    advisory lock (`flock`) on the file `.lock`. On Linux it also holds between machines
    that share the folder by NFS. Where a file system or the operating system has no
    such locks, a line says so and nothing is locked.

    Args:
        folder: The folder; made if missing.

    Raises:
        ValueError: If another process holds the lock, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            str(folder).encode()  # The name is written to files of the run.
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] | None = (folder / _NAME).open("a+")
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL.
            raise folder_error(folder, error) from error
        try:
            self._acquire(folder)
        except BaseException:
            self.release()
            raise

    def _acquire(self, folder: Path) -> None:
        assert self._file is not None
        if fcntl is None:
            print_line(f"note: {folder} is not locked; start no second run in it")
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            raise ValueError(
                f"{folder} is in use by {holder}; wait for that run to end, or choose "
                "another --logdir"
            ) from None
        except OSError as error:
            print_line(
                f"note: {folder} cannot be locked ({error.strerror}); start no second "
                "run in it"
            )
            return
        # On a full disk the name of the holder is lost; the lock needs no space.
        with contextlib.suppress(OSError):
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()

    def release(self) -> None:
        """Release the lock; the second call does nothing."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                file.close()


def folder_error(folder: Path, error: Exception) -> ValueError:
    """The error for a folder that cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return ValueError(
        f"the log folder {folder} cannot be written ({reason}); choose another --logdir"
    )
