"""Estimates where chance and the perturbation decide when an episode ends.

One problem, written for each engine: an action a, which is theta itself, earns a and
ends the episode with probability 1 - Phi(a), Phi the normal cdf; after HORIZON steps it
is cut. The members of a pair meet the same chances with opposite perturbations, so they
end at different steps, and have different numbers of episodes.

The mean of many estimates is within 5 standard errors of the exact gradient of the
smoothed loss, which a right estimator misses with probability 6e-6 a case (t
distribution of 60 draws; the seeds are fixed); and that error is below 4% of the
gradient, so that a wrong one cannot pass for lack of draws.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from scipy.special import ndtr

from pes_rl.agents import ES, NRES, PES
from pes_rl.envs import DeviceRollout, HostRollout, PolicyProblem
from pes_rl.envs.gymnasium.environment import GymnasiumEnvironment

HORIZON, THETA, SIGMA = 5, 0.4, 0.5
NUM_PAIRS, NUM_DRAWS = 200, 60
UPDATES = 4


def chances(key: Any) -> np.ndarray:
    """A normal number for each step of the episode with this key or seed."""
    return np.random.default_rng(key).normal(size=HORIZON)


def act(theta: Any, observation: Any) -> Any:
    del observation
    return theta


@dataclass(frozen=True)
class OnDevice:
    on_device = True
    observation_size = 1
    action_low, action_high, horizon = (-9.0,), (9.0,), HORIZON

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        return (jnp.int32(0), jax.random.normal(key, (HORIZON,))), jnp.zeros(1)

    def step(self, state: Any, action: jax.Array) -> Any:
        t, chance = state
        ended = action[0] + chance[t] <= 0
        return (t + 1, chance), jnp.zeros(1), action[0], ended


class OnHost:
    on_device, can_copy = False, True
    observation_size = 1
    action_low, action_high, horizon = np.array([-9.0]), np.array([9.0]), HORIZON

    def allocate(self, num_simulations: int) -> None:
        self.t = np.zeros(num_simulations, int)
        self.chance = np.zeros((num_simulations, HORIZON))

    def load(self, state: Any) -> None:
        self.t, self.chance = (field.copy() for field in state)

    def save(self) -> Any:
        return self.t.copy(), self.chance.copy()

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        self.t[ids], self.chance[ids] = 0, [chances(key) for key in keys]
        return np.zeros((len(ids), 1))

    def step(self, actions: np.ndarray, ids: np.ndarray | None) -> Any:
        rows = np.arange(len(self.t)) if ids is None else ids
        ended = actions[:, 0] + self.chance[rows, self.t[rows]] <= 0
        self.t[rows] += 1
        return np.zeros((len(rows), 1)), actions[:, 0], ended


class InGymnasium(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (1,), np.float64)
    action_space = spaces.Box(-9, 9, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t, self.chance = 0, chances(seed)
        return np.zeros(1), {}

    def step(self, action: np.ndarray) -> Any:
        ended = bool(action[0] + self.chance[self.t] <= 0)
        self.t += 1
        return np.zeros(1), float(action[0]), ended, False, {}


ENGINES = {
    "device": lambda: DeviceRollout(PolicyProblem(OnDevice(), act), HORIZON),
    "host": lambda: HostRollout(OnHost(), act, HORIZON),
    "gymnasium": lambda: HostRollout(GymnasiumEnvironment(InGymnasium), act, HORIZON),
}


E, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
E, WEIGHTS = SIGMA * E, WEIGHTS / WEIGHTS.sum()


def smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over e ~ N(0, SIGMA^2) of values at `E`, and its derivative by theta."""
    return np.array([WEIGHTS @ values, WEIGHTS @ (values * E) / SIGMA**2])


def survive(steps: int) -> np.ndarray:
    """Chance to live through so many steps under each of `E`."""
    return ndtr(THETA + E) ** steps


def loss(steps: int) -> np.ndarray:
    """Expected loss of so many steps, of which those after the end are not taken."""
    return -(THETA + E) * sum(survive(step) for step in range(steps))


def unrolls_of_an_episode(
    truncation_length: int, reuse: bool
) -> tuple[list[float], np.ndarray]:
    """Gradient that each unroll contributes, and probability that it is the last.

    They follow from the probabilities `alive` that an episode lasts beyond k unrolls.
    With one perturbation an unroll these are products; with one an episode, all unrolls
    have the same perturbation.
    """
    whole, rest = divmod(HORIZON, truncation_length)
    lengths = [truncation_length] * whole + [rest] * (rest > 0)
    parts, alive = [], [1.0]
    for k, steps in enumerate(lengths):
        before = k * truncation_length
        if reuse:
            parts.append(smoothed(survive(before) * loss(steps))[1])
            alive.append(smoothed(survive(before + steps))[0])
            continue
        survival, d_survival = smoothed(survive(truncation_length))
        own, d_own = smoothed(loss(steps))
        d_before = k * survival ** (k - 1) * d_survival
        parts.append(d_before * own + survival**k * d_own)
        alive.append(survival ** (k + 1))
    return parts, -np.diff([*alive[:-1], 0.0])  # The horizon ends the last unroll.


def expected(truncation_length: int, reuse: bool) -> float:
    """Expected sum of the estimates of UPDATES unrolls, all begun at a first step.

    The k-th unroll of an episode contributes the gradient `parts[k]`. `begins[u]` is
    the probability that an episode begins with unroll u.
    """
    parts, lasts = unrolls_of_an_episode(truncation_length, reuse)
    begins = [1.0]
    for update in range(1, UPDATES):
        ages = range(1, min(update, len(lasts)) + 1)
        begins.append(sum(lasts[k - 1] * begins[update - k] for k in ages))
    return sum(
        begins[update - k] * parts[k]
        for update in range(UPDATES)
        for k in range(min(update + 1, len(parts)))
    )


def draw(estimator: Any, rollout: Any) -> np.ndarray:
    """Independent sums of the estimates of UPDATES unrolls. # shape=(NUM_DRAWS,)"""
    theta = jnp.array([THETA], jnp.float32)

    def one(keys: jax.Array) -> jax.Array:
        state, total = estimator.init(rollout, theta, keys[0]), jnp.zeros(1)
        for key in keys[1:]:
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
            total = total + gradient
        return total[0]

    keys = jax.random.split(jax.random.key(5), (NUM_DRAWS, UPDATES + 1))
    if rollout.on_device:
        return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))
    return np.array([one(row) for row in keys])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("estimator", "truncation_length", "reuse"),
    [
        pytest.param(PES(NUM_PAIRS, 1, SIGMA), 1, False, id="pes, K = 1"),
        pytest.param(PES(NUM_PAIRS, 2, SIGMA), 2, False, id="pes, K = 2"),
        pytest.param(NRES(NUM_PAIRS, 2, SIGMA), 2, True, id="nres, K = 2"),
        pytest.param(ES(NUM_PAIRS, SIGMA), HORIZON, True, id="es"),
    ],
)
def test_the_mean_estimate_is_the_gradient_of_the_smoothed_loss(
    engine, estimator, truncation_length, reuse
):
    mean = expected(truncation_length, reuse)
    draws = draw(estimator, ENGINES[engine]())
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert error < 0.04 * abs(mean)
    assert abs(draws.mean() - mean) < 5 * error


@pytest.mark.parametrize("reuse", [False, True])
def test_the_mean_of_an_update_is_the_gradient_over_the_unrolls_of_an_episode(reuse):
    """grad J / E[U], once the phases are mixed; U depends on theta."""
    parts, lasts = unrolls_of_an_episode(2, reuse)
    unrolls = np.arange(1, len(lasts) + 1) @ lasts
    assert 1.5 < unrolls < 2.5
    estimator: Any = (NRES if reuse else PES)(NUM_PAIRS, 2, SIGMA)
    rollout, theta = ENGINES["device"](), jnp.array([THETA], jnp.float32)

    def one(key: jax.Array) -> jax.Array:
        def update(state: Any, key: jax.Array) -> Any:
            gradient, state, _ = estimator.estimate(rollout, theta, state, key)
            return state, gradient[0]

        state = estimator.init(rollout, theta, key)
        keys = jax.random.split(jax.random.fold_in(key, 1), 40)
        return jax.lax.scan(update, state, keys)[1][10:].mean()

    keys = jax.random.split(jax.random.key(7), NUM_DRAWS)
    draws = np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    mean = sum(parts) / unrolls
    assert error < 0.04 * abs(mean)
    assert abs(draws.mean() - mean) < 5 * error


def test_the_members_of_a_pair_end_at_different_steps():
    rollout = ENGINES["host"]()
    particles = rollout.reset(jax.random.key(0), NUM_PAIRS)
    e = np.tile([[SIGMA], [-SIGMA]], (NUM_PAIRS, 1))
    thetas = jnp.asarray(THETA + e, jnp.float32)
    _, segment = rollout.unroll(particles, thetas, HORIZON, single_episode=True)
    lengths = np.asarray(segment.simulated.sum(0)).reshape(NUM_PAIRS, 2)
    assert np.mean(lengths[:, 0] != lengths[:, 1]) > 0.5
