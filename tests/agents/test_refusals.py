"""Settings and environments that an estimator refuses, and what it names instead."""

import dataclasses

import counting
import jax
import pytest
import recurrent
from estimator_table import (
    DIFFERENTIATING,
    ESTIMATORS,
    HORIZON,
    RECURRENT_THETA,
    THETA,
    every_driver,
    make_rollout,
)
from jax import lax

from pes_rl.agents import (
    ARS,
    BPTT,
    ES,
    GPES,
    NRES,
    PES,
    RTRL,
    TBPTT,
    UORO,
    PESAnalytic,
    RandomSearch,
    TruncatedES,
)
from pes_rl.envs import DeviceRollout, FinalLoss


@pytest.mark.parametrize(
    "make",
    [
        lambda p, s: PES(p, 4, s),
        lambda p, s: GPES(p, 4, 8, s),
        lambda p, s: NRES(p, 4, s),
        lambda p, s: PESAnalytic(p, 4, s),
        lambda p, s: ARS(p, 1, s),
        ES,
        lambda p, s: TruncatedES(p, 4, s),
    ],
)
@pytest.mark.parametrize(
    ("num_pairs", "sigma", "message"),
    [
        (0, 0.1, "num_pairs=0 must be at least 1 .* use 10"),
        (-3, 0.1, "num_pairs=-3"),
        (2, 0.0, "sigma=0.0 must be above 0; use 0.1"),
        (2, -1.0, "sigma=-1.0"),
        (2, float("nan"), "sigma=nan"),
    ],
)
def test_a_population_that_cannot_be_is_refused(make, num_pairs, sigma, message):
    with pytest.raises(ValueError, match=message):
        make(num_pairs, sigma)


@pytest.mark.parametrize(
    "kind", [BPTT, lambda n: TBPTT(n, 4), lambda n: RandomSearch(n, 1.0)]
)
def test_a_number_of_particles_below_one_is_refused(kind):
    with pytest.raises(ValueError, match="num_particles=0 must be at least 1; use 8"):
        kind(0)


@pytest.mark.parametrize("trace_decay", [-0.1, 1.1, float("nan")])
def test_a_trace_decay_beyond_0_to_1_is_refused(trace_decay):
    with pytest.raises(ValueError, match=f"={trace_decay} must be between 0 and 1; "):
        PES(2, 4, 0.1, trace_decay=trace_decay)


PARTIAL = [
    lambda k: PES(2, k, 0.1),
    lambda k: GPES(2, k, k, 0.1),
    lambda k: NRES(2, k, 0.1),
    lambda k: TruncatedES(2, k, 0.1),
]
PARTIAL_DIFFERENTIATING = [
    lambda k: PESAnalytic(2, k, 0.1),
    lambda k: TBPTT(2, k),
    lambda k: RTRL(2, k),
    lambda k: UORO(2, k),
]


@pytest.mark.parametrize("make", PARTIAL + PARTIAL_DIFFERENTIATING)
def test_a_truncation_length_below_one_is_refused(make):
    with pytest.raises(ValueError, match="truncation_length=0 must be at least 1 step"):
        make(0)


@pytest.mark.parametrize("make", PARTIAL_DIFFERENTIATING)
def test_derivatives_refuse_a_truncation_length_beyond_the_horizon(make):
    with pytest.raises(ValueError, match="=7 is longer than the horizon of 6 steps"):
        make(7).init(make_rollout("device"), THETA, jax.random.key(0))


@every_driver
@pytest.mark.parametrize("make", PARTIAL)
def test_a_truncation_length_beyond_the_horizon_is_refused(make, driver):
    message = "truncation_length=7 is longer than the horizon of 6 steps; use 6 or less"
    with pytest.raises(ValueError, match=message):
        make(7).init(make_rollout(driver), THETA, jax.random.key(0))


def test_truncated_es_is_refused_where_states_cannot_be_copied():
    rollout = counting.host_rollout(HORIZON, can_copy=False)
    with pytest.raises(ValueError, match="cannot be copied; use pes or es"):
        ESTIMATORS["truncated-es"].init(rollout, THETA, jax.random.key(0))
    for name in ("pes", "gpes", "nres", "es", "ars", "random-search"):
        ESTIMATORS[name].init(rollout, THETA, jax.random.key(0))


@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_derivatives_are_refused_where_there_are_none(name):
    class InPieces(recurrent.Recurrent):
        differentiable = False

    message = f"{name.split(',')[0]} differentiates .* use pes, nres, gpes or es"
    for rollout in (
        make_rollout("host"),
        DeviceRollout(InPieces(), HORIZON),
        DeviceRollout(FinalLoss(InPieces()), HORIZON),
    ):
        with pytest.raises(ValueError, match=message):
            ESTIMATORS[name].init(rollout, THETA, jax.random.key(0))
        with pytest.raises(ValueError, match="derivatives"):
            rollout.differentiable()


@dataclasses.dataclass(frozen=True)
class Looping(recurrent.Recurrent):
    """With a loop in its step, which has a forward mode alone."""

    def step(self, theta, state):
        theta = lax.while_loop(lambda x: x[0] > 1, lambda x: x / 2, theta)
        return super().step(theta, state)


@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_reverse_mode_is_refused_where_there_is_none(name):
    rollout, start = DeviceRollout(Looping(), HORIZON), jax.random.key(0)
    if name == "rtrl":  # Goes forwards.
        ESTIMATORS[name].init(rollout, RECURRENT_THETA, start)
        return
    message = f"{name.split(',')[0]} differentiates in reverse.* use rtrl, pes"
    with pytest.raises(ValueError, match=message):
        ESTIMATORS[name].init(rollout, RECURRENT_THETA, start)


@pytest.mark.parametrize("name", ["es", "ars", "random-search", "bptt"])
def test_whole_episodes_are_refused_where_they_have_no_end(name):
    endless = DeviceRollout(make_rollout("device").problem, horizon=None)
    with pytest.raises(
        ValueError, match=f"{name} plays .* use pes or truncated-es, or"
    ):
        ESTIMATORS[name].init(endless, THETA, jax.random.key(0))


def test_staggering_is_refused_where_episodes_have_no_end():
    endless = DeviceRollout(make_rollout("device").problem, horizon=None)
    with pytest.raises(ValueError, match="stagger needs a finite horizon"):
        ESTIMATORS["pes, staggered"].init(endless, THETA, jax.random.key(0))
