"""`AskTell` beside the engine, on the counting environment stepped by hand."""

from typing import Any

import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_rl.agents import (
    ARS,
    ES,
    GPES,
    NRES,
    PES,
    AskTell,
    AskTellState,
    PESAnalytic,
    RandomSearch,
    TruncatedES,
    UnrollRequest,
)

pytestmark = pytest.mark.user_compilation

HORIZON, DIVERGED_LOSS, SEED, UPDATES = 6, 2.5, 4, 5
THETA = np.array([0.25, -0.5], np.float32)
ESTIMATORS: dict[str, Any] = {
    "pes": PES(3, 2, 0.7, stagger=True, trace_decay=0.9),
    "pes, in chunks": PES(4, 2, 0.7, pairs_per_chunk=2),
    "nres": NRES(3, 4, 0.7),
    "es": ES(3, 0.7),
    "truncated-es": TruncatedES(3, 4, 0.7),
    "gpes": GPES(3, 2, 4, 0.7),
    "ars": ARS(3, 2, 0.7),
    "random-search": RandomSearch(4, 2.0),
}
SLOW = ("pes, in chunks", "gpes", "ars", "random-search")
every_estimator = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in ESTIMATORS],
)


class Simulators:
    """The user's side: states of simulations, and a batch to step them in.

    Steps after the end of an episode are taken too, and have losses that are NaN.
    """

    def __init__(self) -> None:
        self.environment = counting.HostCounting(HORIZON, diverges_at=3)
        self.states: Any = None

    def run(self, request: UnrollRequest) -> tuple[np.ndarray, np.ndarray]:
        """Losses and ends of the unroll. # shape=(K, M)"""
        environment, count = self.environment, len(request.thetas)
        environment.allocate(count)
        if self.states is not None:
            rows = {k: v[request.source] for k, v in self.states.items()}
            environment.load(rows)
        observation = np.stack([environment.step_number, environment.tide], axis=1)
        begins = np.flatnonzero(request.begins)
        observation[begins] = environment.reset(begins, request.keys[begins])
        losses = np.full((request.length, count), np.nan)
        ended, running = np.zeros((request.length, count), bool), np.ones(count, bool)
        for k in range(request.length):
            actions = counting.act(request.thetas, observation)
            observation, reward, terminated = environment.step(actions, None)
            finite = np.isfinite(observation).all(1)
            losses[k] = np.where(running & finite, -reward, np.nan)
            ended[k] = terminated
            running &= ~terminated
        after = environment.save()
        if self.states is None:
            num_simulations = request.source.max() + 1
            self.states = {k: np.zeros(num_simulations, np.float32) for k in after}
        for key, value in after.items():
            self.states[key][request.source] = value  # The last of several remains.
        return losses, ended


def make(name: str) -> AskTell:
    return AskTell(ESTIMATORS[name], THETA, HORIZON, SEED, DIVERGED_LOSS)


def run(ask_tell: AskTell, simulators: Simulators, updates: range) -> list[Any]:
    """(gradient, report) of updates, each under its own theta."""
    return [
        ask_tell.tell(*simulators.run(ask_tell.ask(THETA + 0.1 * update)))
        for update in updates
    ]


@every_estimator
def test_estimates_are_the_engine_s(name):
    """Gradients and reports, with early ends, time limits and divergences."""
    estimator, rollout = (
        ESTIMATORS[name],
        counting.host_rollout(HORIZON, DIVERGED_LOSS, diverges_at=3),
    )
    start_key, key = jax.random.split(jax.random.key(SEED))
    state = estimator.init(rollout, jnp.asarray(THETA), start_key)
    total = 0
    for update, told in enumerate(run(make(name), Simulators(), range(UPDATES))):
        gradient, state, report = estimator.estimate(
            rollout,
            jnp.asarray(THETA + 0.1 * update),
            state,
            jax.random.fold_in(key, update),
        )
        scale = np.abs(gradient).max()
        assert scale > 0
        np.testing.assert_allclose(told[0], gradient, rtol=1e-6, atol=1e-6 * scale)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            told[1],
            report,
        )
        for count in ("particle_loss", "env_steps", "episodes", "diverged"):
            np.testing.assert_array_equal(
                getattr(told[1], count), getattr(report, count)
            )
        total += report.diverged
    assert total > 0


@pytest.mark.parametrize("name", ["pes", "truncated-es"])
def test_a_saved_state_goes_on_to_the_bit(name, tmp_path):
    """Through a file, saved between `ask` and `tell`."""
    whole = make(name)
    expected, after = run(whole, Simulators(), range(4)), whole.state
    ask_tell, simulators = make(name), Simulators()
    run(ask_tell, simulators, range(2))
    ask_tell.ask(THETA)
    leaves = jax.tree.leaves(ask_tell.state)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz") as file:
        leaves = [file[f"arr_{i}"] for i in range(len(leaves))]
    ask_tell = make(name)
    ask_tell.state = jax.tree.unflatten(jax.tree.structure(ask_tell.state), leaves)
    history = run(ask_tell, simulators, range(2, 4))
    jax.tree.map(np.testing.assert_array_equal, history, expected[2:])
    jax.tree.map(np.testing.assert_array_equal, ask_tell.state, after)


def test_asking_again_asks_the_same():
    ask_tell = make("pes")
    first, again = ask_tell.ask(THETA), ask_tell.ask(THETA)
    np.testing.assert_array_equal(first.thetas, again.thetas)
    assert first.seeds.max() < 2**31
    np.testing.assert_array_equal(first.seeds[::2], first.seeds[1::2])
    assert len(np.unique(first.seeds)) == 3


def test_what_cannot_be_told_is_refused():
    ask_tell = make("nres")
    losses, ended = np.zeros((4, 6)), np.zeros((4, 6), bool)
    with pytest.raises(ValueError, match=r"tell needs .* call ask\(theta\) first"):
        ask_tell.tell(losses, ended)
    with pytest.raises(ValueError, match=r"shape \(3,\); .* flat vector of 2 numbers"):
        ask_tell.ask(np.zeros(3))
    ask_tell.ask(THETA)
    with pytest.raises(ValueError, match=r"losses has .* \(6,\); it must be \(4, 6\)"):
        ask_tell.tell(losses.sum(0), ended)
    with pytest.raises(ValueError, match=r"ended has the shape \(6, 4\); it must be"):
        ask_tell.tell(losses, ended.T)
    with pytest.raises(ValueError, match=r"ended float64; they must be .* and bool"):
        ask_tell.tell(losses, losses)
    with pytest.raises(ValueError, match="losses are complex128"):
        ask_tell.tell(1j * losses, ended)
    ask_tell.tell(losses, ended)
    with pytest.raises(ValueError, match="tell needs the losses of an unroll"):
        ask_tell.tell(losses, ended)


def test_estimators_and_states_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"horizon=0 must be a whole number from 1"):
        AskTell(PES(2, 4, 0.1), np.zeros(2), horizon=0)
    with pytest.raises(ValueError, match="theta has no numbers"):
        AskTell(PES(2, 4, 0.1), [], horizon=4)
    with pytest.raises(ValueError, match="use restart_at_once=False"):
        AskTell(PES(3, 2, 0.1, restart_at_once=True), THETA)
    with pytest.raises(ValueError, match="critic_discount needs observations"):
        AskTell(PES(3, 2, 0.1, critic_discount=0.9), THETA)
    with pytest.raises(ValueError, match="pes-analytic differentiates"):
        AskTell(PESAnalytic(3, 2, 0.1), THETA, HORIZON)
    with pytest.raises(ValueError, match="es plays whole episodes"):
        AskTell(ES(3, 0.1), THETA)
    ask_tell = make("pes")
    other: AskTellState = make("nres").state
    with pytest.raises(ValueError, match="this state has other arrays"):
        ask_tell.state = other
