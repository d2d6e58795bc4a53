"""EnvPool: seeds that it takes, errors that it raises, simulations that diverge."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pes_rl.envs.gymnasium import envpool as module
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment
from pes_rl.envs.gymnasium.envpool import EnvPoolThreads
from pes_rl.envs.gymnasium.results import BrokenEnvironment


class Failing:
    """A pool whose step fails, and whose reset too."""

    def __init__(self, fails_at_reset: bool) -> None:
        self.fails_at_reset = fails_at_reset

    def reset(self, ids: np.ndarray) -> Any:
        if self.fails_at_reset:
            raise RuntimeError("no arm")
        return np.zeros((len(ids), 2)), {"env_id": ids}

    def step(self, actions: np.ndarray, ids: np.ndarray) -> Any:
        raise RuntimeError("no arm")


@pytest.mark.parametrize("fails_at_reset", [True, False])
def test_an_error_names_the_task_and_the_call(fails_at_reset, monkeypatch):
    pool = SimpleNamespace(make=lambda *_, **__: Failing(fails_at_reset))
    monkeypatch.setattr(module, "import_envpool", lambda: pool)
    threads, ids = EnvPoolThreads("Arm-v0", {}, 1, 2), np.arange(2)
    call = "reset" if fails_at_reset else "step"
    message = rf"^EnvPool's Arm-v0: a {call} raised RuntimeError: no arm \(line"
    with pytest.raises(BrokenEnvironment, match=message):
        threads.reset(ids, ids)
        threads.step(np.zeros((2, 1)), ids)


@pytest.fixture
def hopper() -> GymnasiumEnvironment:
    pytest.importorskip("envpool")
    environment = GymnasiumEnvironment(
        "Hopper-v5", vectorization="envpool", num_threads=1
    )
    environment.allocate(2)
    return environment


def test_the_largest_seeds_are_taken(hopper):
    """Keys of 32 bits give seeds below 2^31, which are EnvPool's int32."""
    keys = np.array([[0, 2**32 - 1], [0, 2**31 - 1]], np.uint32)
    first = hopper.reset(np.arange(2), keys)
    np.testing.assert_array_equal(*first)
    assert np.isfinite(first).all()


def test_actions_of_nan_diverge_alone(hopper, capfd):
    hopper.reset(np.arange(2), np.zeros((2, 2), np.uint32))
    actions = np.zeros((2, 3))
    actions[1] = np.nan
    _, rewards, _ = hopper.step(actions, None)
    np.testing.assert_array_equal(np.isnan(rewards), [False, True])
    capfd.readouterr()  # Its own MuJoCo prints a warning.


def test_a_package_id_is_refused_with_what_to_do():
    pytest.importorskip("envpool")
    with pytest.raises(ValueError, match="EnvPool has no 'package:Arm-v0'; use vec"):
        GymnasiumEnvironment("package:Arm-v0", vectorization="envpool")
