"""The environment checker: sound environments pass, each fault is found."""

import re
from typing import Any

import broken
import counting
import gymnasium
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
COPIES = "states can be copied, and copies step as the originals do"
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
        (["gym:Pendulum-v1", "--env-kwargs", "{g: 1}"], "is no JSON object; write for"),
        (["gym:spaces_counting:TextActions-v0"], "wrappers.TransformAction"),
    ],
)
def test_bad_input_ends_in_one_line(capsys, arguments, message):
    assert check.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def registered():
    yield lambda kind: gymnasium.register("CheckBroken-v0", kind, max_episode_steps=9)
    gymnasium.registry.pop("CheckBroken-v0", None)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    "fault",
    [
        fault
        for fault, (_, step, _) in broken.FAULTS.items()
        if step == 3 or fault in ("NaN at reset", "reward is None")
    ],
)
def test_check_finds_what_breaks_gymnasium_s_api(
    fault, vectorization, registered, capsys
):
    registered(broken.FAULTS[fault][0])
    options = ["--vectorization", vectorization, "--num-threads", "2"]
    status = check.main(["gym:CheckBroken-v0", "--num-pairs", "1", *options])
    printed = capsys.readouterr()
    assert status == 1, printed
    assert "CheckBroken-v0:" in printed.out
    assert re.search("every reset and step .* no", printed.out)


def test_check_reports_a_reward_of_nan_and_what_gymnasium_says(registered, capsys):
    nan_reward = broken.breaks(2, lambda o, _, *rest: (o, np.nan, *rest))
    registered(nan_reward)
    assert check.main(["gym:CheckBroken-v0", "--vectorization", "sync"]) == 1
    printed = capsys.readouterr().out
    assert "episodes diverged" in printed
    assert "accepts it" in printed


@pytest.mark.parametrize("fault", ["raises", "warns"])
def test_check_passes_on_what_gymnasium_s_checker_says(fault, registered, capsys):
    class Unseeded(broken.Sound):
        def change(self, step: int, result: Any) -> Any:
            if fault == "warns":
                return result
            return (np.random.default_rng().random(2).astype(np.float32), *result[1:])

    registered(Unseeded)
    status = check.main(["gym:CheckBroken-v0", "--vectorization", "sync"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "accepts it" in printed
    assert status == (fault == "raises")
    verdict = "no" if fault == "raises" else "note"
    assert re.search(rf"check_env .* {verdict} ", printed)
