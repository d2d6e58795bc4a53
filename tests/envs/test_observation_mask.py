"""Entries of observations by name and number."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from pes_rl.envs import make
from pes_rl.envs.observation_mask import OBSERVATION_PARTS, visible_entries


@pytest.mark.parametrize(
    ("mask", "visible"),
    [
        ("0", (1, 2, 3, 4, 5)),
        ("4:", (0, 1, 2, 3)),
        (":2", (2, 3, 4, 5)),
        ("1:3, 5", (0, 3, 4)),
        ("2,2,0:1", (1, 3, 4, 5)),
    ],
)
def test_indices_and_ranges(mask, visible):
    assert visible_entries(mask, 6, "hopper") == visible


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("", "'', which is no entry of hopper's 6; write indices from 0 to 5"),
        ("6", "'6', which is no entry"),
        ("-1", "'-1', which is no entry"),
        ("3:3", "'3:3', which is no entry"),
        ("0:7", "'0:7', which is no entry"),
        ("contact-forces", "or ranges such as 0:6, separated by commas$"),
        (":", "hides all 6 entries"),
    ],
)
def test_what_is_no_mask(mask, message):
    with pytest.raises(ValueError, match=message):
        visible_entries(mask, 6, "hopper")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="ant also has contact-forces"):
        visible_entries("contacts", 105, "ant")


@pytest.mark.parametrize("name", OBSERVATION_PARTS)
def test_the_parts_are_those_of_gymnasiums_observation(name):
    """Gymnasium says how many entries each quantity has, in their order."""
    identifiers = {"ant": "Ant", "humanoid": "Humanoid"}
    identifier = identifiers.get(name, "HumanoidStandup")
    environment = gymnasium.make(f"{identifier}-v5")
    structure = environment.unwrapped.observation_structure  # type: ignore[attr-defined]
    environment.close()
    names = {
        "body-inertias": "cinert",
        "body-velocities": "cvel",
        "actuator-forces": "qfrc_actuator",
        "contact-forces": "cfrc_ext",
    }
    structure.pop("skipped_qpos")
    ends = np.cumsum(list(structure.values()))
    expected = {
        key: slice(end - structure[key], end)
        for key, end in zip(structure, ends.tolist(), strict=True)
    }
    for part, entries in OBSERVATION_PARTS[name].items():
        assert entries == expected[names[part]]
    environment: Any = make(name)
    assert environment.observation_size == ends[-1]
