"""Sharing: a run pushed to a folder or the hub and pulled again is the same policy."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import pes_rl
from pes_rl import hub
from pes_rl.agents import Policy
from pes_rl.config.train_config import make_config
from pes_rl.run_folder.policy_files import (
    save_policy,
)
from pes_rl.run_folder.reader import read_config
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)

SUMMARY = {
    "env": "swimmer",
    "final_return": 355.25,
    "final_return_std": 1.5,
    "final_episodes": 100,
    "best_return": 356.5,
    "total_timesteps": 500_000,
    "wall_seconds": 61.2,
}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    for name in ("policy", "video", "checkpoints/100"):
        (folder / name).mkdir(parents=True)
    content = {
        "settings": dataclasses.asdict(make_config("swimmer", "nres", seed=3)),
        "made_by": ["pes-rl 0.1.0"],
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "command": ["python", "-m", "pes_rl.train", "--env", "swimmer"],
    }
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "progress.csv").write_text("time/total_timesteps\n")
    (folder / "video" / "best.gif").write_bytes(b"GIF89a")
    (folder / "checkpoints" / "100" / "state").write_bytes(b"large")
    policy = Policy(8, (-1.0, -1.0), (1.0, 1.0))
    theta = np.arange(policy.num_parameters, dtype=np.float32)
    mean = np.zeros(8, np.float32)
    save_policy(
        folder / "policy" / "best.npz", TrainedPolicy(policy, theta, mean, mean + 1)
    )
    return folder


def names(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


URL = "https://hub/someone/swimmer"
SHARED = {
    *("config.json", "summary.json", "progress.csv", "README.md"),
    *("policy/best.npz", "video/best.gif"),
}


def check_pulled(run, pulled):
    assert names(pulled) == SHARED - {"README.md"}
    assert read_config(pulled) == read_config(run)
    theta = pes_rl.load_policy(pulled).theta
    np.testing.assert_array_equal(theta, pes_rl.load_policy(run).theta)


def test_a_folder_can_be_pushed_to_and_pulled_from(run, tmp_path, capsys):
    pytest.importorskip("huggingface_hub")
    shared, pulled = tmp_path / "shared", tmp_path / "pulled"
    assert hub.main(["push", str(run), str(shared)]) == 0
    assert names(shared) == SHARED
    assert hub.main(["pull", str(shared), str(pulled)]) == 0
    check_pulled(run, pulled)
    assert capsys.readouterr().out.splitlines() == [str(shared), str(pulled)]
    assert hub.main(["pull", str(shared), str(pulled)]) == 2
    assert "name a new folder" in capsys.readouterr().err


def test_the_card_is_what_the_hub_reads(run, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub.push(run, str(tmp_path / "shared"))
    card = huggingface_hub.ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.library_name == "pes_rl"
    assert "nres" in card.data.tags
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("mean_reward", 355.25)
    for text in (
        "355.25 +- 1.5 (standard deviation over 100 episodes)",
        "python -m pes_rl.train --env swimmer",
        "jax 0.10.2",
        "![the policy](video/best.gif)",
        "500,000",
    ):
        assert text in card.text


def test_the_hub_gets_the_shared_files_alone(run, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    seen = {}

    def create_repo(self, repo_id, **options):
        seen["created"] = (repo_id, options)
        return URL

    def upload_folder(self, *, repo_id, folder_path):
        seen["uploaded"] = repo_id, names(folder_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    assert hub.push(run, "someone/swimmer", private=True) == URL
    assert seen["created"] == ("someone/swimmer", {"private": True, "exist_ok": True})
    assert seen["uploaded"] == ("someone/swimmer", SHARED)

    def snapshot_download(repo_id, local_dir, allow_patterns):
        assert repo_id == "someone/swimmer"
        shared = tmp_path / "shared"
        hub.push(run, str(shared))
        for path in huggingface_hub.utils.filter_repo_objects(
            sorted(names(shared)), allow_patterns=allow_patterns
        ):
            (local_dir / path).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / path).write_bytes((shared / path).read_bytes())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    check_pulled(run, hub.pull("someone/swimmer", tmp_path / "pulled"))


def test_a_hub_that_cannot_be_reached_is_one_line(run, tmp_path, monkeypatch, capsys):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for arguments in (
        ["push", str(run), "someone/swimmer"],
        ["pull", "someone/swimmer", str(tmp_path / "pulled")],
    ):
        assert hub.main(arguments) == 2
        error = capsys.readouterr().err
        assert "someone/swimmer cannot be reached" in error
        assert error.count("\n") == 1


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'pes-rl\[hub\]'"):
        hub.push(run, "someone/swimmer")


def test_what_is_no_run_is_not_pulled(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is not a run folder"):
        hub.pull(str(tmp_path / "empty"), tmp_path / "pulled")
