"""The compilation cache: where it is, whom it trusts, what it saves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from pes_rl.runtime.compilation_cache import cache_folder, enable_compilation_cache

ROOT = Path(__file__).parents[3]


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user without settings of JAX, whose cache folder is a new one."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in OPTIONS:
        os.environ.pop(name.upper(), None)
    jax.config.update("jax_compilation_cache_dir", None)
    os.environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    yield tmp_path / "cache" / "pes_rl" / "jax"
    for name, value in before.items():
        jax.config.update(name, value)


OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def test_the_folder_is_made_for_the_user_alone(user):
    assert enable_compilation_cache() == user
    assert user.stat().st_mode & 0o777 == 0o700
    # JAX is imported here already; processes that are started read the variable.
    assert getattr(jax.config, OPTIONS[0]) == str(user)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(user)


def test_the_folder_follows_the_platform(user, monkeypatch):
    del os.environ["XDG_CACHE_HOME"]
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    assert cache_folder() == Path("/home/ada/.cache/pes_rl/jax")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path("/home/ada/Library/Caches/pes_rl/jax")
    monkeypatch.setattr(sys, "platform", "win32")
    os.environ["LOCALAPPDATA"] = "local"
    assert cache_folder() == Path("local/pes_rl/jax")


@pytest.mark.parametrize("chosen", ["elsewhere", ""])
def test_a_folder_that_the_user_chose_is_kept(user, chosen):
    os.environ["JAX_COMPILATION_CACHE_DIR"] = chosen
    assert enable_compilation_cache() is None
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == chosen
    assert not user.exists()


def test_a_folder_chosen_in_python_is_kept(user):
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    assert enable_compilation_cache() is None
    assert getattr(jax.config, OPTIONS[0]) == "elsewhere"


def test_a_folder_that_others_can_write_is_not_trusted(user):
    user.mkdir(parents=True)
    user.chmod(0o770)
    assert enable_compilation_cache() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_a_place_that_cannot_be_written_ends_nothing(user, monkeypatch):
    user.parents[1].write_text("a file where a folder is needed")
    assert enable_compilation_cache() is None
    del os.environ["XDG_CACHE_HOME"]

    def homeless():
        raise RuntimeError("could not determine the home folder")

    monkeypatch.setattr(Path, "home", homeless)
    assert enable_compilation_cache() is None


COUNTING = """
import collections, json, sys
import jax.monitoring
from pes_rl.training.command import main

counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
status = main(sys.argv[1:])
events = ("cache_hits", "cache_misses")
print(json.dumps([status, *(counts[f"/jax/compilation_cache/{e}"] for e in events)]))
"""
RUN = (
    "--env unrolled:toy-regression --num-pairs 4 --total-timesteps 400 "
    "--eval-episodes 2 --final-eval-episodes 2 --log-interval 1 --logdir"
)


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A cache that one run has filled, and how often that run asked for a program."""
    place = tmp_path_factory.mktemp("cold")
    (status, hits, misses), _ = start(place / "cache", place / "run")
    assert status == 0
    assert misses > 10
    assert len(list(place.glob("cache/pes_rl/jax/*-cache"))) == misses
    return place / "cache", hits + misses


def start(cache, run):
    """Status, programs taken from the cache, and programs compiled; standard error."""
    command = [sys.executable, "-c", COUNTING, *RUN.split(), str(run)]
    others = {k: v for k, v in os.environ.items() if k.lower() not in OPTIONS}
    shown = subprocess.run(
        command,
        cwd=ROOT,
        env={**others, "XDG_CACHE_HOME": str(cache)},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(shown.stdout.splitlines()[-1]), shown.stderr


def test_a_second_start_compiles_nothing(cold, tmp_path):
    cache, asked = cold
    assert start(cache, tmp_path / "warm") == ([0, asked, 0], "")


@pytest.mark.slow
def test_entries_that_are_cut_off_end_no_run(tmp_path):
    """As after a full disk, or a process that was killed while it wrote."""
    start(tmp_path / "cache", tmp_path / "first")
    for entry in tmp_path.glob("cache/pes_rl/jax/*-cache"):
        entry.write_bytes(entry.read_bytes()[:100])
    (status, hits, _), said = start(tmp_path / "cache", tmp_path / "second")
    assert (status, hits) == (0, 0)
    assert "Error reading persistent compilation cache entry" in said
