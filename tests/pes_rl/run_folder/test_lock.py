"""One run a folder at a time."""

import os
import signal
import subprocess
import sys

import pytest
from quick_run import QUICK

from pes_rl.config.train_config import make_config
from pes_rl.run_folder import lock as lock_module
from pes_rl.run_folder.lock import FolderLock
from pes_rl.run_folder.writer import choose_folder, removed_if_empty
from pes_rl.training import command
from pes_rl.training.trainer import Trainer

HOLD = """
import sys, time
from pathlib import Path
from pes_rl.run_folder.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `run`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_with_its_holder(holder, tmp_path, capsys):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    given = [*options, "--env", "swimmer", "--logdir", str(tmp_path / "run")]
    assert command.main(given) == 2
    shown = capsys.readouterr().err
    assert f"in use by process {holder.pid} on" in shown
    assert shown.count("\n") == 1


def test_a_run_that_is_running_cannot_be_resumed(tmp_path):
    config = make_config("swimmer", "pes", **QUICK)
    first = Trainer(config, tmp_path / "run")
    saved = (tmp_path / "run" / "progress.csv").read_bytes()
    with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
        Trainer(config, tmp_path / "run", resume="newest")
    assert (tmp_path / "run" / "progress.csv").read_bytes() == saved
    first.run()
    Trainer(config, tmp_path / "run", resume="newest").run()


def test_the_lock_dies_with_its_process(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    FolderLock(tmp_path / "run").release()


def test_runs_that_start_in_one_second_take_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config("swimmer", "pes")
    folders = {choose_folder(config) for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.is_dir() for folder in folders)


def test_a_folder_of_a_run_that_did_not_start_is_removed(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="a bad setting"), removed_if_empty(folder):
        FolderLock(folder).release()
        raise ValueError("a bad setting")
    assert not folder.exists()
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(ValueError, match="a bad setting"), removed_if_empty(folder):
        raise ValueError("a bad setting")
    assert (folder / "kept").exists()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock_module, "fcntl", None)
    FolderLock(tmp_path / "run").release()
    assert "is not locked; start no second run in it" in capsys.readouterr().out
