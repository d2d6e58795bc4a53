"""Every fault of an own environment is named before anything is compiled."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_jax import Walk

from pes_rl.envs.interface import check_interface


def with_reset(change: Any) -> Any:
    class Changed(Walk):
        def reset(self, key):
            return change(*super().reset(key))

    return Changed()


def with_step(change: Any) -> Any:
    class Changed(Walk):
        def step(self, state, action):
            return change(*super().step(state, action))

    return Changed()


def with_attribute(name: str, value: Any) -> Any:
    environment = Walk()
    setattr(environment, name, value)
    return environment


class NotTraceable(Walk):
    def step(self, state, action):
        if action[0] > 0:
            return super().step(state, action)
        return super().step(state, -action)


class NumpyRandom(Walk):
    def reset(self, key):
        np.random.default_rng(key)
        return super().reset(key)


def missing(name: str) -> Any:
    members = {n: getattr(Walk(), n) for n in dir(Walk()) if not n.startswith("__")}
    del members[name]
    return type("Changed", (), {**members})()


FAULTS = {
    "no step": (missing("step"), r"has no step; give it step\(state, action\) -> "),
    "no horizon": (missing("horizon"), "has no horizon; give it the steps of the"),
    "not on device": (with_attribute("on_device", False), "on_device = True"),
    "size": (with_attribute("observation_size", 2.0), "must be a whole number above 0"),
    "horizon": (replace(Walk(), horizon=0), "horizon=0; it must be a whole number"),
    "low is a number": (replace(Walk(), action_low=-1.0), r"action_low=-1.0; .* array"),
    "low is a text": (replace(Walk(), action_low="low"), "action_low='low'; it must"),
    "no actions": (replace(Walk(), action_low=()), r"action_low=\(\); it must be"),
    "NaN": (replace(Walk(), action_high=[np.nan]), r"action_high=\[nan\]; it must be"),
    "lengths": (replace(Walk(), action_high=[1.0, 1.0]), "must be of one length"),
    "low is high": (replace(Walk(), action_high=[-1.0]), "each low below its high"),
    "one value": (with_reset(lambda s, o: o), "returned one ShapeDtypeStruct; it must"),
    "shape": (
        with_reset(lambda s, o: (s, o[:1])),
        r"reset\(key\) returned an observation of shape \(1,\), and observation_size "
        "is 2",
    ),
    "dictionary": (with_reset(lambda s, o: (s, {"o": o})), "returned a dict as obser"),
    "whole numbers": (
        with_reset(lambda s, o: (s, o.astype(jnp.int32))),
        r"observation of int32; convert it with .astype\(jnp.float32\)",
    ),
    "five values": (
        with_step(lambda s, o, r, e: (s, o, r, e, {})),
        r"step\(state, action\) returned 5 values; it must return \(state, observation",
    ),
    "other precision": (
        with_step(lambda s, o, r, e: (s, o.astype(jnp.float16), r, e)),
        "returned an observation of float16, and reset one of float32",
    ),
    "reward [1]": (
        with_step(lambda s, o, r, e: (s, o, r[None], e)),
        r"returned float32\(1,\) as reward; it must be one float, such as jnp.float32",
    ),
    "whole reward": (
        with_step(lambda s, o, r, e: (s, o, jnp.int32(1), e)),
        r"returned int32\(\) as reward",
    ),
    "float terminated": (
        with_step(lambda s, o, r, e: (s, o, r, jnp.float32(0))),
        r"returned float32\(\) as terminated; it must be one bool",
    ),
    "other state": (
        with_step(lambda s, o, r, e: ({**s, "more": r}, o, r, e)),
        "returned a state of another structure than reset",
    ),
    "other leaf": (
        with_step(lambda s, o, r, e: ({**s, "position": o}, o, r, e)),
        r"state\['position'\] as float32\(2,\), and reset returned float32\(\)",
    ),
    "not traceable": (
        NotTraceable(),
        r"step\(state, action\) cannot be traced by JAX: TracerBoolConversionError: "
        r".*\(line \d+ of .*test_interface.py: if action\[0\] > 0:\)$",
    ),
    "NumPy's random numbers": (NumpyRandom(), r"reset\(key\) cannot be traced by JAX"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_in_a_line_or_two(fault):
    environment, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message) as caught:
        check_interface(environment, "mine")
    text = str(caught.value)
    assert text.startswith("mine")
    assert "\n" not in text


def test_nothing_is_run():
    """`reset` and `step` see shapes alone."""
    seen: list[bool] = []

    class Watching(Walk):
        def step(self, state, action):
            with pytest.raises(jax.errors.ConcretizationTypeError):
                float(action[0])
            seen.append(True)
            return super().step(state, action)

    check_interface(Watching(), "mine")
    assert seen == [True]


def test_a_sound_environment_passes():
    check_interface(Walk(), "mine")
    check_interface(replace(Walk(), horizon=None), "mine")
    check_interface(replace(Walk(), action_low=[-np.inf], action_high=[9]), "mine")
