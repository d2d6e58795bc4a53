"""Spaces in policy files: what is saved is read, and what is wrong is named."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from spaces_counting import ACTIONS, OBSERVATIONS

from pes_rl.agents import Policy
from pes_rl.envs.gymnasium.space_data import action_bounds, describe_spaces
from pes_rl.envs.spaces import Spaces
from pes_rl.run_folder.policy_files import (
    load_policy,
    save_policy,
)
from pes_rl.run_folder.trained_policy import (
    TrainedPolicy,
)


def trained(observations: Any, actions: Any, seed: int = 0) -> TrainedPolicy:
    """A policy of random parameters that normalises observations."""
    low, high = (tuple(bound.tolist()) for bound in action_bounds(actions))
    policy = Policy(spaces.flatdim(observations), low, high)
    generator = np.random.default_rng(seed)
    theta = generator.normal(size=policy.num_parameters).astype(np.float32)
    mean = generator.normal(size=policy.observation_size).astype(np.float32)
    own = describe_spaces(observations, actions)
    return TrainedPolicy(policy, theta, mean, mean**2 + 1, own)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_a_saved_policy_takes_observations_and_returns_actions(
    observation, action, tmp_path
):
    """The environment's own, and right: the same as of Gymnasium's flat vector."""
    theirs, space = OBSERVATIONS[observation][0], ACTIONS[action]
    original = trained(theirs, space)
    path = tmp_path / "best.npz"
    save_policy(path, original)
    policy = load_policy(path)
    assert policy.spaces == original.spaces
    theirs.seed(1)
    for _ in range(5):
        sample = theirs.sample()
        flat = np.asarray(spaces.flatten(theirs, sample), np.float64)
        outputs = policy.act(policy.theta.astype(np.float64), flat)
        chosen = policy(sample)
        assert space.contains(chosen)
        if action == "discrete":
            assert type(chosen) is int
            assert chosen == 5 + int(np.argmax(outputs))
        if isinstance(space, spaces.Box):
            expected = outputs.reshape(space.shape).astype(space.dtype)
            np.testing.assert_array_equal(chosen, expected)
        same, state = policy.predict(sample)
        assert np.array_equal(same, chosen)
        assert state is None


def test_batches_of_a_vector_env_are_answered_at_once():
    theirs, space = OBSERVATIONS["nested"]
    policy = trained(theirs, ACTIONS["multi-discrete"])
    samples = [space(step) for step in range(5)]
    batch = {
        "way": (
            np.array([one["way"][0] for one in samples]),
            np.stack([one["way"][1] for one in samples]),
        ),
        **{key: np.stack([one[key] for one in samples]) for key in ("on", "image")},
    }
    np.testing.assert_array_equal(policy(batch), [policy(one) for one in samples])
    actions = trained(OBSERVATIONS["vector"][0], ACTIONS["discrete"])(np.eye(2))
    assert actions.shape == (2,)
    assert actions.dtype == np.int64


def test_a_policy_of_vectors_is_saved_as_before(tmp_path):
    """So older versions read it, and refuse one whose spaces they do not know."""
    vectors = trained(spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (2,)))
    assert vectors.spaces == Spaces()
    save_policy(tmp_path / "a.npz", vectors)
    save_policy(
        tmp_path / "b.npz", trained(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
    )
    descriptions = []
    for name in ("a", "b"):
        with np.load(tmp_path / f"{name}.npz") as file:
            descriptions.append(json.loads(str(file["policy"])))
    assert set(descriptions[0]) == {"format", *Policy.__dataclass_fields__}
    assert descriptions[1]["spaces"] == {
        "observation": None,
        "action": {"kind": "discrete", "n": 2, "start": 0},
    }
    assert load_policy(tmp_path / "a.npz")(np.zeros((4, 3))).shape == (4, 2)


def test_a_policy_acts_without_gymnasium_and_jax(tmp_path):
    theirs, observe = OBSERVATIONS["nested"]
    policy = trained(theirs, ACTIONS["discrete"])
    save_policy(tmp_path / "best.npz", policy)
    program = (
        "import sys; import pes_rl; "
        f"policy = pes_rl.load_policy({str(tmp_path / 'best.npz')!r}); "
        "print(policy({'way': (0, [1, -1]), 'on': [1, 1], "
        "'image': [[1, 2, 3], [4, 5, 6]]})); "
        "assert not {'jax', 'gymnasium', 'mujoco'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(shown.stdout) == policy(observe(1))


NESTED = trained(OBSERVATIONS["nested"][0], ACTIONS["multi-discrete"])
LEAF = {"kind": "multi-binary", "shape": [2]}
DEEP: Any = LEAF
for _ in range(40):
    DEEP = {"kind": "tuple", "spaces": [DEEP]}
BAD: dict[str, tuple[list[Any], Any, str]] = {
    # Where in the spaces, what is put there, what the message says.
    "a list": ([], [1], r"spaces is \[1\] and must be an object with observation and"),
    "a side": (
        ["action"],
        "x",
        r"spaces.action is 'x' and must be an object that desc",
    ),
    "no kind": (["action"], {}, "spaces.action.kind is None and must be one of box, d"),
    "kind": (["action", "kind"], "text", "spaces.action.kind is 'text' and must be on"),
    "a list as kind": (["action", "kind"], [], r"spaces.action.kind is \[\] and must"),
    "new field": (["action", "n"], 3, "spaces.action has the fields .* have kind, sh"),
    "nvec": (["action", "nvec"], [2, 0], r"spaces.action.nvec is \[2, 0\] and must be"),
    "nvecs": (["action", "nvec"], [2, 1, 2], "has 3 numbers in nvec and must have 2"),
    "start": (["action", "start"], [0], "has 1 numbers in start and must have 2"),
    "one start": (["action", "start"], 0, "action.start is 0 and must be a list of wh"),
    "type": (["action", "dtype"], "object", "dtype is 'object' and must be one of bo"),
    "shape": (["action", "shape"], [2.0], r"shape is \[2.0\] and must be a list of wh"),
    "axes": (["action", "shape"], [1] * 64, "63 at most"),
    "size": (["action"], LEAF, "spaces.action has 2 numbers and must have 5"),
    "a tuple": (["action"], {"kind": "tuple", "spaces": [LEAF]}, "no tuple or dict"),
    "inside": (
        ["observation", "spaces", 2, "spaces", 0, "n"],
        True,
        r"spaces.observation.spaces\[2\].spaces\[0\].n is True and must be a whole",
    ),
    "whole start": (
        ["observation", "spaces", 2, "spaces", 0, "start"],
        [1],
        r"spaces\[0\].start is \[1\] and must be a whole number",
    ),
    "keys": (["observation", "keys"], ["a"], "has 1 keys and 3 spaces"),
    "odd keys": (["observation", "keys"], [1.5] * 3, "a list of texts and whole"),
    "no spaces": (["observation", "spaces"], None, "spaces is None and must be a list"),
    "deep": (["observation"], DEEP, "at most 32 deep"),
    "larger": (
        ["observation", "spaces", 0, "shape"],
        [10**9] * 8,
        "spaces.observation has .* numbers and must have 13",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_description_is_named(case, tmp_path):
    where, value, message = BAD[case]
    path = tmp_path / "best.npz"
    save_policy(path, NESTED)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    description = json.loads(str(arrays["policy"]))
    place = description
    for step in (steps := ["spaces", *where])[:-1]:
        place = place[step]
    place[steps[-1]] = value
    arrays["policy"] = np.array(json.dumps(description))
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
