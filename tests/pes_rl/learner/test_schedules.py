"""Schedules that are functions of the user's: values, checks, what is recorded."""

import math

import jax.numpy as jnp
import pytest

from pes_rl.learner.optimizer import OptimizerConfig
from pes_rl.learner.schedules import (
    describe_functions,
    largest_value,
    take_schedules,
    value_at,
)


def cosine(progress):
    return 0.1 * (1 + jnp.cos(math.pi * progress)) / 2


def test_a_schedule_has_its_value_at_the_progress_and_stays_at_its_end():
    optimizer = OptimizerConfig("sgd", cosine)
    for progress, expected in ((0.0, 0.1), (0.5, 0.05), (1.0, 0.0), (1.3, 0.0)):
        value = optimizer.learning_rate_at(jnp.float32(progress))
        assert value.dtype == jnp.float32
        assert float(value) == pytest.approx(expected, abs=1e-8)
    assert float(value_at(lambda progress: 2, jnp.float32(0.3))) == 2.0


def test_functions_are_replaced_by_their_largest_values():
    given = {"learning_rate": cosine, "sigma": lambda progress: 0.1 + progress}
    settings, schedules = take_schedules({**given, "num_pairs": 3})
    assert schedules == given
    assert settings == {
        "learning_rate": pytest.approx(0.1),
        "learning_rate_decay": "constant",
        "sigma": pytest.approx(1.1),
        "final_sigma": None,
        "num_pairs": 3,
    }
    plain = {"learning_rate": 0.1, "sigma": 0.2}
    assert take_schedules(plain) == (plain, {})


def branching(progress):
    return 0.1 if progress < 0.5 else 0.01


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("sigma", branching, "cannot trace .* with jnp.where in place of if"),
        ("sigma", lambda: 0.1, "cannot trace"),
        ("sigma", lambda progress: "text", "cannot trace"),
        (
            "sigma",
            lambda progress: jnp.ones(2),
            r"has the shape \(2,\); return a single",
        ),
        ("sigma", lambda p: 1 - p, "at a progress of 1.00 is 0; it must be above 0"),
        ("learning_rate", lambda p: 0.5 - p, "at a progress of 0.51 is -0.0"),
        ("learning_rate", lambda p: 0 * p, "is 0; it must be above 0"),
        ("learning_rate", lambda p: jnp.log(p), "at a progress of 0.00 is -inf"),
    ],
)
def test_functions_that_cannot_be_used_are_refused(name, function, message):
    with pytest.raises(ValueError, match=message):
        largest_value(name, function)


def test_a_warm_up_may_begin_at_0():
    assert largest_value("learning_rate", lambda p: 0.2 * p) == pytest.approx(0.2)


def test_two_schedules_of_one_setting_are_refused():
    for options, other in (
        ({"learning_rate": cosine, "learning_rate_decay": "linear"}, "learning_rate_d"),
        ({"sigma": lambda progress: 0.1, "final_sigma": 0.01}, "final_sigma"),
    ):
        with pytest.raises(ValueError, match=f"drop {other}"):
            take_schedules(options)


class Halving:
    def __call__(self, progress):
        return 0.5 ** (1 + progress)


def test_what_is_recorded_names_the_function():
    texts = describe_functions({"learning_rate": cosine, "sigma": Halving()})
    assert texts["learning_rate"].startswith("a Python function: cosine, test_sched")
    assert texts["sigma"] == "a Python function: Halving"
