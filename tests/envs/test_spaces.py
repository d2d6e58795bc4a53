"""Spaces as plain data: the vectors are Gymnasium's, the actions are right by hand."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from spaces_counting import ACTIONS, CHOSEN, FLATTENED, OBSERVATIONS

from pes_rl.envs import spaces
from pes_rl.envs.gymnasium.space_data import describe


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_an_observation_is_flattened_as_by_hand(name):
    space, observe = OBSERVATIONS[name]
    own = describe(space)
    assert own.flatten(observe(4)).tolist() == FLATTENED[name]
    assert own.size == len(FLATTENED[name])


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_samples_are_flattened_as_by_gymnasium_alone_and_in_batches(name):
    theirs = OBSERVATIONS[name][0]
    theirs.seed(3)
    samples = [theirs.sample() for _ in range(20)]
    own = describe(theirs)
    rows = np.array([gymnasium.spaces.flatten(theirs, one) for one in samples])
    np.testing.assert_array_equal([own.flatten(one) for one in samples], rows)
    batch = concatenate(theirs, samples, create_empty_array(theirs, 20))
    assert batch_space(theirs, 20).contains(batch)
    np.testing.assert_array_equal(own.flatten(batch), rows)


def test_numbers_in_a_box_have_its_precision_as_gymnasium_s():
    theirs = gymnasium.spaces.Dict({"a": gymnasium.spaces.Box(0, 1, (1,), np.float32)})
    observation = {"a": np.array([0.1])}
    expected = gymnasium.spaces.flatten(theirs, observation)
    flat = describe(theirs).flatten(observation)
    assert flat[0] == float(np.float32(0.1)) != 0.1
    np.testing.assert_array_equal(flat, expected)


@pytest.mark.parametrize("name", ACTIONS)
def test_the_action_of_outputs_is_that_by_hand_and_of_the_space(name):
    outputs, expected = CHOSEN[name]
    space = ACTIONS[name]
    own = describe(space)
    assert not isinstance(own, spaces.Tuple | spaces.Dict)
    assert own.size == len(outputs)
    action = own.to_action(np.array(outputs))
    assert space.contains(action)
    assert np.asarray(action).tolist() == expected
    batch = own.to_action(np.array([outputs, outputs]))
    assert batch.shape == (2, *(space.shape or ()))
    assert batch.tolist() == [expected, expected]


BAD = {
    "shape": ("image", np.zeros((3, 2)), r"shape \(3, 2\); this policy takes \(2, 3\)"),
    "text": ("image", "abc", "observation must be numbers and is str of 3"),
    "ragged": ("image", [[1], [2, 3]], "must be numbers and is list of 2"),
    "too high": ("discrete", 5, "observation is 5 and must be from -1 to 4"),
    "too low": ("discrete", -2, "observation is -2 and must be from -1 to 4"),
    "a fraction": ("discrete", 0.5, "must be whole numbers and is float"),
    "one of two": (
        "multi-discrete",
        [4, 0],
        "observation is 4 and must be from 1 to 3",
    ),
    "no tuple": ("tuple", {"a": 1}, "must be a tuple of 2 and is dict of 1"),
    "short": ("tuple", (1,), "must be a tuple of 2 and is tuple of 1"),
    "no dictionary": ("nested", np.zeros(13), r"dictionary with .* and is ndarray of"),
    "no key": ("nested", {"image": 0, "on": 0}, "observation has no 'way'; it has"),
    "inside": (
        "nested",
        {**OBSERVATIONS["nested"][1](0), "way": (0, np.zeros(3))},
        r"observation\['way'\]\[1\] has shape \(3,\)",
    ),
    "batches": (
        "tuple",
        (np.array([1, 2]), np.zeros((3, 2))),
        "parts of observation are batches of different lengths",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_observation_is_said_with_where(case):
    name, value, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        describe(OBSERVATIONS[name][0]).flatten(value)
