"""The environment checker: sound environments pass, each fault is found."""

from typing import Any

import counting
import jax
import numpy as np
import pytest

from pes_rl import check
from pes_rl.envs import HostRollout


def answers(environment: Any, horizon: int = 20) -> dict[str, str]:
    rollout = HostRollout(environment, counting.act, horizon)
    found = check.check(rollout, counting.NUM_PARAMETERS, num_pairs=3)
    return {question: verdict for question, verdict, _ in found}


SAME_KEY = "the same key gives the same episodes"
SAME_PAIR = "the members of a pair meet the same randomness"
COPIES = "states can be copied and go on as the originals"
FINITE = "observations and rewards are finite"


def test_a_sound_environment_passes():
    verdicts = answers(counting.HostCounting())
    assert set(verdicts.values()) == {"yes", "note"}
    assert verdicts["engine, steps a second"] == "note"
    assert answers(counting.HostCounting(can_copy=False))[COPIES] == "note"


class OwnRandomness(counting.HostCounting):
    """Draws its tide itself."""

    generator = np.random.default_rng(0)

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        keys = self.generator.integers(1000, size=keys.shape).astype(np.uint32)
        return super().reset(ids, keys)


class Forgetful(counting.HostCounting):
    """Leaves its drift out of what it saves."""

    def load(self, state: Any) -> None:
        drift = getattr(self, "drift", None)
        super().load(state)
        if drift is not None and len(drift) == len(self.drift):
            self.drift = drift.copy()


@pytest.mark.parametrize(
    ("environment", "faults"),
    [
        (OwnRandomness(), {SAME_KEY, SAME_PAIR, COPIES}),
        (Forgetful(), {COPIES}),
        (counting.HostCounting(diverges_at=2), {FINITE}),
    ],
    ids=["own randomness", "forgetful", "diverging"],
)
def test_each_fault_is_found(environment, faults, monkeypatch):
    # Pushes large enough to diverge.
    normal = jax.random.normal
    monkeypatch.setattr(jax.random, "normal", lambda *a, **k: 10 * normal(*a, **k))
    verdicts = answers(environment)
    assert {question for question, verdict in verdicts.items() if verdict == "no"} == (
        faults
    )


@pytest.mark.parametrize(
    "env",
    [
        "inverted_pendulum",
        pytest.param("jax:swimmer", marks=pytest.mark.slow),
        "gym:Pendulum-v1",
    ],
)
def test_the_command_prints_a_table(env, capsys):
    options = ["--vectorization", "async"] if env.startswith("gym:") else []
    assert check.main([env, "--num-pairs", "1", "--horizon", "30", *options]) == 0
    printed = capsys.readouterr().out
    assert env in printed
    assert "steps a second" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swimer"], "unknown environment 'swimer'"),
        (["swimmer", "--num-pairs", "0"], "num_pairs=0 must be at least 1"),
        (["gym:CartPole-v1"], "Box action space"),
    ],
)
def test_bad_input_ends_in_one_line(capsys, arguments, message):
    assert check.main(arguments) == 2
    assert message in capsys.readouterr().err
