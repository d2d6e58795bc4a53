"""Whatever settings are given, they are a `TrainConfig` or a `ValueError`."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from properties import TEXTS, VALUES, bounded

from pes_rl.agents import AGENT_NAMES
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs.names import environment_names

SETTINGS = [
    field.name
    for field in dataclasses.fields(TrainConfig)
    if field.name not in ("env", "agent")
]
PLAUSIBLE = st.none() | st.sampled_from([1, 2, 10, 0.5, True, "adam", (8, 8), "{}"])
OPTIONS = st.dictionaries(
    st.sampled_from(SETTINGS) | TEXTS, PLAUSIBLE | VALUES, max_size=4
).map(lambda options: {k: v for k, v in options.items() if k not in ("env", "agent")})


def result_of(env, agent, options) -> TrainConfig | None:
    try:
        return make_config(env, agent, **options)
    except ValueError as error:
        assert str(error)
        return None


@bounded(400)
@given(
    st.sampled_from([*environment_names(), "gym:Pendulum-v1"]),
    st.sampled_from(AGENT_NAMES),
    OPTIONS,
)
def test_settings_of_a_task(env, agent, options):
    config = result_of(env, agent, options)
    if config is not None:
        json.dumps(dataclasses.asdict(config), allow_nan=False)
        assert TrainConfig(**dataclasses.asdict(config)) == config


@bounded(200)
@given(VALUES | st.none(), VALUES | st.none(), OPTIONS)
def test_names_of_any_kind(env, agent, options):
    result_of(env, agent, options)


def test_not_all_options_are_refused():
    """Else the first property would say little."""
    values: list[Any] = [1, 0.5, True, "adam", (8, 8), "{}"]
    accepted = {
        name
        for name in SETTINGS
        for value in values
        if result_of("swimmer", "pes", {name: value})
    }
    assert len(accepted) > len(SETTINGS) / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 10**400}, "must be a finite number"),
        ({"seed": -(10**400)}, "must be a finite number"),
        ({"env_kwargs": "[" * 100_000}, "is no JSON object"),
        ({"env": ["swimmer"]}, r"env=\['swimmer'\] must be a text"),
        ({"agent": {}}, "agent={} must be a text"),
    ],
)
def test_what_raised_other_errors(options, message):
    with pytest.raises(ValueError, match=message):
        make_config(**{"env": "swimmer", "agent": "pes", **options})
