"""Gymnasium environments in Ray workers: packages, seeds, and broken ones."""

# Ray is an extra.
# pyright: reportMissingImports=false

import gc
import os
import sys
from pathlib import Path
from typing import Any

import broken
import gymnasium
import numpy as np
import pytest

import pes_rl

ray = pytest.importorskip("ray")

from pes_rl.envs.ray.cluster import connect  # noqa: E402

# Ray's own: processes that it leaves to its daemons.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]

# Registers its environments when it is imported, here and in workers.
PACKAGE = """
import gymnasium
import broken


class Reaching(broken.Old):  # takes small seeds alone
    def step(self, action):
        row, _, *rest = super().step(action)
        return row, -abs(float(action[0] - row[0])), *rest


limit = {"max_episode_steps": 20, "disable_env_checker": True}
gymnasium.register("Reaching-v0", "rayarms:Reaching", **limit)
for number, (kind, _, _) in enumerate(broken.FAULTS.values()):
    gymnasium.register(f"Fault{number}-v0", kind, **limit)
"""
FAULTS = (
    "complex at step 2",
    "short at step 1",
    "reward is None",
    "sys.exit at step 2",
    "OSError at step 3",
)
SHORT: dict[str, Any] = {
    "num_pairs": 2,
    "truncation_length": 4,
    "total_timesteps": 64,
    "eval_episodes": 1,
    "final_eval_episodes": 2,
    "vectorization": "sync",
}


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("packages")
    (folder / "rayarms").mkdir()
    (folder / "rayarms" / "__init__.py").write_text(PACKAGE)
    known = dict(gymnasium.registry)
    paths = [str(folder), str(Path(broken.__file__).parent)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join(paths), prepend=os.pathsep)
        connect(None, num_cpus=4)
        yield
    ray.shutdown()
    gymnasium.registry.clear()
    gymnasium.registry.update(known)
    sys.modules.pop("rayarms", None)
    gc.collect()  # Its warnings are for these tests, which ignore them.


def test_a_package_id_and_small_seeds_train_as_without_workers(tmp_path):
    env = "gym:rayarms:Reaching-v0"
    thetas = [
        pes_rl.train(env, logdir=tmp_path / str(n), workers=n, **SHORT).theta
        for n in (0, 2)
    ]
    assert np.any(thetas[0])
    np.testing.assert_array_equal(thetas[1], thetas[0])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_broken_environment_ends_the_run_in_a_line(fault, tmp_path):
    _, step, message = broken.FAULTS[fault]
    env_id = f"Fault{list(broken.FAULTS).index(fault)}-v0"
    where = f"step {step}" if step else r"reset\(seed=\d+\)"
    line = f"^rayarms:{env_id}: {where} .*{message}"
    with pytest.warns(RuntimeWarning, match=line) as seen:
        result = pes_rl.train(
            f"gym:rayarms:{env_id}", logdir=tmp_path / "run", workers=2, **SHORT
        )
    (text,) = [str(w.message) for w in seen if w.category is RuntimeWarning]
    assert len(text.splitlines()) == 1
    assert result.summary["ended_by"] == "the environment"
    assert result.summary["total_timesteps"] == 0


def test_a_first_observation_of_nan_is_an_error_at_the_start(tmp_path):
    env_id = f"rayarms:Fault{list(broken.FAULTS).index('NaN at reset')}-v0"
    with pytest.raises(
        ValueError, match=rf"^{env_id}: reset\(seed=\d+\) .* not finite"
    ):
        pes_rl.train(f"gym:{env_id}", logdir=tmp_path / "run", workers=2, **SHORT)
    assert not (tmp_path / "run").exists()
