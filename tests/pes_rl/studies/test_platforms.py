"""What other operating systems lack: studies and measurements without it."""

import signal
from pathlib import Path

import pytest

from pes_rl.analysis import memory_case
from pes_rl.analysis.memory import Memory
from pes_rl.studies import worker_pool


def test_ctrl_c_is_blocked_for_a_moment():
    with worker_pool.block_ctrl_c():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_processes_start_where_ctrl_c_cannot_be_blocked(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask")
    with worker_pool.block_ctrl_c():
        pass


def test_the_processes_of_a_study_ignore_ctrl_c(monkeypatch):
    monkeypatch.setattr(worker_pool, "_end_with_parent", lambda: None)
    monkeypatch.setenv("NPROC", "1")
    before = signal.getsignal(signal.SIGINT)
    try:
        worker_pool.prepare_process(1)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_memory_is_measured_on_linux_alone(monkeypatch):
    monkeypatch.setattr(memory_case, "PEAK_RESET", Path("/proc/self/nothing"))
    with pytest.raises(ValueError, match="this system does not have; measure on Linux"):
        Memory().run()
