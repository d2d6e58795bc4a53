"""Published results: each table says what made it."""

import subprocess
from pathlib import Path

import pytest

from pes_rl.run_folder.provenance import read_makers

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is published is in git")
def test_each_published_table_says_what_made_it():
    command = ["git", "ls-files", "results/*.csv"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    tables = [ROOT / name for name in listed.stdout.splitlines()]
    assert len(tables) > 30
    for path in tables:
        entries = [e for e in read_makers(path.parent) if path.name in e["files"]]
        assert len(entries) == 1, f"{path.parent / 'made.json'} says nothing of {path}"
        assert all("pes-rl" in maker for maker in entries[0]["made_by"])
        assert {"versions", "date", "platform", "recorded"} <= entries[0].keys()
