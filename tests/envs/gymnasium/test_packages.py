"""`gym:package:Id`: a package that registers its environments when it is imported."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from pes_rl import check
from pes_rl.envs import make

PACKAGE = """
import gymnasium

gymnasium.register("InPackage-v0", "{name}.arm:make_arm", max_episode_steps=20)
gymnasium.register("InPackage-v1", "{name}.arm:make_arm", max_episode_steps=20)
gymnasium.register("Inner-v0", "{name}.arm:Inner", max_episode_steps=20)
"""

ARM = """
import gymnasium
import numpy as np


class Inner(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-9, 9, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(3, np.float32), {}

    def step(self, action):
        return self.np_random.random(3, np.float32), 1.0, False, False, {}


def make_arm():  # Gymnasium below 1.4 refuses the class of a wrapper
    return gymnasium.Wrapper(gymnasium.make("Inner-v0"))  # needs the registration
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = f"arms_{tmp_path.name}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(PACKAGE.format(name=name))
    (tmp_path / name / "arm.py").write_text(ARM)
    monkeypatch.syspath_prepend(tmp_path)
    known = dict(gymnasium.registry)
    yield name
    gymnasium.registry.clear()
    gymnasium.registry.update(known)
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


@pytest.mark.parametrize("vectorization", ["sync", "async", "auto"])
def test_every_vectorization_imports_the_package(package, vectorization, monkeypatch):
    if vectorization == "auto":
        # As where steps are slow.
        monkeypatch.setattr("pes_rl.envs.gymnasium.choice.WORKERS_PAY_FROM", 0.0)
    environment: Any = make(
        f"gym:{package}:InPackage-v1", vectorization=vectorization, num_threads=2
    )
    assert environment.horizon == 20
    assert environment.vectorization.startswith(
        "sync" if vectorization == "sync" else "async"
    )
    environment.allocate(3)
    keys = np.array([[0, 7], [0, 8], [0, 7]], np.uint32)
    observations = environment.reset(np.arange(3), keys)
    expected = np.random.default_rng(7).random(3, np.float32)
    np.testing.assert_array_equal(observations[[0, 2]], [expected] * 2)
    _, rewards, _ = environment.step(np.zeros((3, 1)), None)
    assert rewards.tolist() == [1.0] * 3


@pytest.mark.filterwarnings("ignore:.*Using the latest versioned environment")
def test_an_id_without_a_version_is_the_latest(package):
    environment: Any = make(
        f"gym:{package}:InPackage", vectorization="async", num_threads=1
    )
    environment.allocate(1)
    assert environment._simulations._make_arguments[0][0].id == "InPackage-v1"


@pytest.mark.parametrize("vectorization", ["sync", "async", "auto"])
def test_check_accepts_it(package, vectorization, capsys):
    arguments = ["--num-threads", "2", "--num-pairs", "1"]
    status = check.main(
        [f"gym:{package}:InPackage-v1", "--vectorization", vectorization, *arguments]
    )
    assert status == 0, capsys.readouterr()


@pytest.mark.parametrize(
    "error", ["OSError('no mesh')", "SystemExit(0)", "KeyError(1)"]
)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_package_that_fails_to_import(package, error, vectorization):
    path = Path(sys.path[0]) / package / "__init__.py"
    path.write_text(f"raise {error}\n")
    name = f"Gymnasium cannot make '{package}:InPackage-v1': .*: raise "
    with pytest.raises(ValueError, match=name):
        make(f"gym:{package}:InPackage-v1", vectorization=vectorization)
