"""A study's processes end with it; those of somebody else are left alone."""

import multiprocessing
import os
import time

import pytest

from pes_rl.studies.worker_pool import worker_pool


def test_ctrl_c_terminates_the_pool_s_processes_alone(other_process):
    started = []
    with pytest.raises(KeyboardInterrupt), worker_pool(1) as pool:
        before = multiprocessing.active_children()
        running = pool.submit(time.sleep, 600)
        while not running.running():
            time.sleep(0.01)
        started = [p for p in multiprocessing.active_children() if p not in before]
        raise KeyboardInterrupt
    assert len(started) == 1
    # The pool's own thread waits for the process too; `join` can return before that
    # thread has noted the end.
    deadline = time.monotonic() + 60
    while started[0].is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not started[0].is_alive()
    assert other_process.is_alive()


def test_a_process_that_is_killed_is_an_error_with_advice():
    with (
        pytest.raises(ValueError, match="killed, by the system if memory is short"),
        worker_pool(1) as pool,
    ):
        pool.submit(os._exit, 1).result()
