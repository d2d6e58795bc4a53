"""A pool of worker processes that train, and their end with the command."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool


@contextlib.contextmanager
def worker_pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `jobs` worker processes.

    After an error no further work is begun; what is being trained goes on to its end.
    Ctrl-C terminates the pool's processes, and no others that this process has.

    Raises:
        ValueError: If one of the processes was killed.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, prepare_process, (jobs,)) as pool:
        try:
            yield pool
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                for process in multiprocessing.active_children():
                    if process not in others:
                        process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise ValueError(
                    "a process that trains was killed, by the system if memory is "
                    "short; the same command continues with what is missing, and "
                    "smaller --jobs need less memory"
                ) from error
            raise


def prepare_process(jobs: int) -> None:
    """Initialise a worker process: its end with the parent, its share of the CPUs.

    XLA reads NPROC at its start; it would otherwise use all CPUs in each process and
    split arrays of a few hundred particles between them, which is slower.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    os.environ["NPROC"] = str(max(1, (os.cpu_count() or 1) // jobs))


def _end_with_parent() -> None:
    """End this worker process as soon as its parent has ended, however it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # This is a worker process.

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def block_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C for a moment, and permanently in processes started meanwhile.

    On Ctrl-C a worker process would print a traceback, or end one run and start the
    next; `worker_pool` terminates them instead. Windows cannot block it;
    `prepare_process` makes its workers ignore it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
