"""Settings that are refused, each with what to write instead."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from pes_rl.config.train_config import TrainConfig, make_config

FLOATS = [
    field.name
    for field in dataclasses.fields(TrainConfig)
    if "float" in str(field.type)
]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", FLOATS)
def test_every_number_must_be_finite(name, value):
    assert len(FLOATS) >= 10
    with pytest.raises(ValueError, match=f"{name}={value} must be a finite number"):
        make_config("swimmer", "pes", **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_pairs": 2.5}, "num_pairs=2.5 must be a whole number or None"),
        ({"num_pairs": True}, "num_pairs=True must be a whole number or None"),
        ({"num_pairs": "8"}, "num_pairs='8' must be a whole number or None"),
        ({"sigma": "0.1"}, "sigma='0.1' must be a number or None"),
        ({"sigma": [0.1]}, r"sigma=\[0.1\] must be a number or None"),
        ({"seed": None}, "seed=None must be a whole number"),
        ({"seed": 2**32}, "seed=4294967296 must be from 0 to 4294967295"),
        ({"seed": -1}, "seed=-1 must be from 0 to 4294967295"),
        ({"bias": "yes"}, "bias='yes' must be true or false"),
        ({"bias": 1}, "bias=1 must be true or false"),
        ({"env_kwargs": {"a": 1}}, "env_kwargs={'a': 1} must be a text"),
        ({"optimizer": "rmsprop"}, "optimizer='rmsprop' must be 'sgd', 'adam'"),
        ({"hidden_sizes": (8, 2.5)}, "must be a list of whole numbers"),
        ({"logdir": 3}, "logdir=3 must be a text or None"),
    ],
)
def test_types_and_ranges(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        make_config("swimmer", "pes", **options)


def test_numbers_of_numpy_must_be_finite_too():
    with pytest.raises(ValueError, match="sigma=inf must be a finite number"):
        make_config("swimmer", "pes", sigma=np.float32(np.inf))


def test_numbers_of_numpy_and_lists_are_settings_that_json_can_hold():
    """`for seed in np.arange(3)` gives such a seed."""
    given: dict[str, Any] = {
        "seed": np.int64(3),
        "sigma": np.float32(0.5),
        "bias": np.bool_(False),
        "hidden_sizes": [np.int64(8), 4],
    }
    config = make_config("swimmer", "pes", policy="mlp", **given)
    plain = {"seed": 3, "sigma": 0.5, "bias": False, "hidden_sizes": (8, 4)}
    assert config == make_config("swimmer", "pes", policy="mlp", **plain)
    written = json.loads(json.dumps(dataclasses.asdict(config)))
    assert {name: written[name] for name in given} == {**plain, "hidden_sizes": [8, 4]}


@pytest.mark.parametrize(("env", "agent"), [(3, "pes"), ("swimmer", ["pes"])])
def test_names_must_be_texts(env, agent):
    with pytest.raises(ValueError, match=r"must be a text|unknown"):
        TrainConfig(env=env, agent=agent)


def test_whole_numbers_are_numbers():
    assert make_config("swimmer", "pes", sigma=1, threshold=-5).sigma == 1


def test_a_critic_is_for_pes_alone_and_excludes_restarts_at_once():
    config = make_config("swimmer", "pes", critic_discount=0.98)
    assert config.critic_discount == 0.98
    assert not config.restart_at_once  # a default of this task
    with pytest.raises(ValueError, match=r"critic_discount=0\.98 has no mean"):
        make_config("swimmer", "nres", critic_discount=0.98)


def test_a_trace_decay_is_for_pes_alone():
    assert make_config("swimmer", "pes", trace_decay=0.8).trace_decay == 0.8
    with pytest.raises(ValueError, match=r"=0\.8 has no meaning for nres; .* use pes$"):
        make_config("swimmer", "nres", trace_decay=0.8)
