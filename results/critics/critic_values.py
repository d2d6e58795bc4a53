"""Critics: predictions b of the loss to go, fitted on rollouts of their own.

All are fitted on the same unrolls, which no estimate is made of: PES's particles at the
same theta and sigma, from another key. Values are those of perturbed policies, as in an
estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.agents.core.perturbations import perturb_antithetic
from pes_rl.envs import Particles, Rollout

DISCOUNTS = (0.99, 0.997, 0.999, 1.0)
"""A step, of the losses that the critics by least squares predict."""
NUM_FEATURES = 256
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates of the penalty, in units of the features' variance."""

Observe = Callable[[Particles], Any]


def observation_of(particles: Particles) -> Any:
    """Observations before the next step, of either driver. # shape=(N, O)."""
    state = particles.state
    return state[1] if isinstance(state, tuple) else state.observation


@dataclass(frozen=True)
class Samples:
    """Beginnings of unrolls, in episodes whose end was seen.

    Attributes:
        observation: # shape=(n, O)
        elapsed: Steps of the episode so far. # shape=(n,)
        to_go: Loss until the episode's end, for each of `DISCOUNTS`. # shape=(n, 4)
        pair: The pair of the particle. # shape=(n,)
        twins: Places of the two members of a pair in one unroll, where their episodes
            have the same age. # shape=(m, 2)
    """

    observation: np.ndarray
    elapsed: np.ndarray
    to_go: np.ndarray
    pair: np.ndarray
    twins: np.ndarray


def record(
    rollout: Rollout,
    theta: jax.Array,
    length: int,
    sigma: float,
    chains: int,
    steps: int,
    key: jax.Array,
    observe: Observe = observation_of,
) -> Samples:
    """Unrolls of PES's particles, at least `steps` steps and one whole episode.

    Args:
        rollout: Where particles live; episodes have a longest length.
        theta: Held fixed. # shape=(D,)
        length: Steps K of an unroll.
        sigma: Standard deviation of the perturbations.
        chains: Antithetic pairs.
        steps: Environment steps.
        key: Of all randomness.
        observe: The particles' observations.
    """
    assert rollout.horizon is not None
    unroll = partial(rollout.unroll, length=length, single_episode=True)
    unroll = jax.jit(unroll) if rollout.on_device else unroll
    reset_key, key = jax.random.split(key)
    particles = rollout.reset(reset_key, chains)
    discounting = np.array(DISCOUNTS)[:, None] ** np.arange(length)
    rows, done = [], 0
    while done < steps or len(rows) * length < rollout.horizon:
        number = jax.random.fold_in(key, len(rows))
        _, thetas = perturb_antithetic(rollout, theta, number, chains, sigma)
        after, segment = unroll(particles, thetas)
        done += int(np.sum(segment.simulated))
        rows.append(
            (
                np.array(observe(particles)),
                np.array(particles.clock.elapsed),
                (discounting @ np.asarray(segment.loss, np.float64)).T,
                np.asarray(segment.ended).any(0),
            )
        )
        particles = after
    observation, elapsed, loss, ended = map(np.stack, zip(*rows, strict=True))
    to_go, known = _losses_to_go(loss, ended, discounting[:, -1] * DISCOUNTS)
    pair = np.broadcast_to(np.arange(2 * chains) // 2, known.shape)
    twins = _twins(elapsed, known)
    return Samples(observation[known], elapsed[known], to_go[known], pair[known], twins)


def _twins(elapsed: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Places [m, 2], among the known, of both members where both are and agree."""
    place = (np.cumsum(known) - 1).reshape(len(known), -1, 2)
    both = known.reshape(place.shape).all(2)
    elapsed = elapsed.reshape(place.shape)
    return place[both & (elapsed[..., 0] == elapsed[..., 1])]


def _losses_to_go(
    loss: np.ndarray, ended: np.ndarray, discount: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(loss until the episode's end [U, N, 4], whether that end was seen [U, N]).

    Args:
        loss: Discounted losses of each unroll. # shape=(U, N, 4)
        ended: Whether the episode ended in it. # shape=(U, N)
        discount: That of an unroll. # shape=(4,)
    """
    to_go, known = loss.copy(), ended.copy()
    for u in reversed(range(len(loss) - 1)):
        to_go[u] += np.where(ended[u][:, None], 0, discount * to_go[u + 1])
        known[u] |= known[u + 1]
    return to_go, known


@dataclass(frozen=True)
class Critics:
    """Fitted critics; called with observations [N, O] and elapsed steps [N].

    Attributes:
        names: "none", which is 0; "age", the mean loss to go of other pairs at the same
            age of the episode; and "discount g" for each of `DISCOUNTS`, that mean and
            least squares of what is left.
        explained: How much of the difference between the members of a pair in the
            (undiscounted) loss to go each takes away, on pairs that it was not fitted
            on: 1 - E[(dG - db)^2] / E[dG^2].
        horizon, length: T and K.
        by_age: Mean loss to go. # shape=(ceil(T / K), 4)
        mean, std: Of the observations. # shape=(O,)
        frequencies, phases: Of the features. # shape=(O + 1, M), (M,)
        weights: Of the features; the first row is the constant. # shape=(1 + F, 4)
    """

    names: tuple[str, ...]
    explained: tuple[float, ...]
    horizon: int
    length: int
    by_age: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray
    weights: np.ndarray

    def __call__(self, observation: Any, elapsed: Any) -> jax.Array:
        """The values b of each critic. # shape=(6, N)."""
        left = _affine(self.features(observation, elapsed), self.weights)
        age = jnp.asarray(self.by_age, jnp.float32)[elapsed // self.length]
        undiscounted = age[:, -1:]
        nothing = jnp.zeros_like(undiscounted)
        return jnp.concatenate([nothing, undiscounted, age + left], axis=1).T

    def features(self, observation: Any, elapsed: Any) -> jax.Array:
        """Cosines of random projections, and the inputs themselves. # shape=(N, F)."""
        return _features(
            observation,
            elapsed / self.horizon,
            self.mean,
            self.std,
            self.frequencies,
            self.phases,
        )


@jax.jit
def _features(
    observation: Any, time: Any, mean: Any, std: Any, frequencies: Any, phases: Any
) -> jax.Array:
    normal = jnp.clip((observation - mean[None]) / std[None], -5, 5)
    centred = np.sqrt(12) * (time - 0.5)  # of variance 1 where times are uniform
    inputs = jnp.concatenate([normal, centred[:, None]], axis=1).astype(jnp.float32)
    waves = jnp.cos(inputs @ frequencies.astype(jnp.float32) + phases[None])
    return jnp.concatenate([inputs, waves], axis=1).astype(jnp.float32)


@jax.jit
def _affine(phi: jax.Array, weights: Any) -> jax.Array:
    weights = weights.astype(jnp.float32)
    return weights[:1] + phi @ weights[1:]


def fit(samples: Samples, horizon: int, length: int, seed: int = 0) -> Critics:
    """Critics of all kinds.

    The penalty of least squares is the one with the least error on a quarter of the
    pairs, each discount its own; the weights are then fitted on all pairs.

    Args:
        samples: What they are fitted on.
        horizon: T.
        length: K.
        seed: Of the features.
    """
    generator = np.random.default_rng(seed)
    size = samples.observation.shape[1] + 1
    count = NUM_FEATURES - size
    critics = Critics(
        names=("none", "age", *(f"discount {d:g}" for d in DISCOUNTS)),
        explained=(),
        horizon=horizon,
        length=length,
        by_age=_means_by_age(samples, horizon, length),
        mean=samples.observation.mean(0),
        std=samples.observation.std(0) + 1e-6,
        frequencies=generator.normal(size=(size, count)) / np.sqrt(size),
        phases=generator.uniform(0, 2 * np.pi, count),
        weights=np.zeros((1 + NUM_FEATURES, len(DISCOUNTS))),
    )
    phi = np.asarray(critics.features(samples.observation, samples.elapsed), float)
    left = samples.to_go - critics.by_age[samples.elapsed // length]
    tests = samples.pair % 4 == 0
    trial, weights = _validated_ridge(phi, left, tests)
    seen = samples.twins[tests[samples.twins[:, 0]]].T
    explained = _explained(replace(critics, weights=trial), samples, *seen)
    return replace(critics, weights=weights, explained=explained)


def _explained(
    critics: Critics, samples: Samples, first: np.ndarray, second: np.ndarray
) -> tuple[float, ...]:
    """`Critics.explained`, on the pairs with these places."""
    values = np.asarray(critics(samples.observation, samples.elapsed), float)
    true = samples.to_go[first, -1] - samples.to_go[second, -1]
    found = values[:, first] - values[:, second]
    errors = np.mean((true - found) ** 2, axis=1)
    explained = 1 - errors / max(np.mean(true**2), 1e-30)
    return tuple(explained.round(6).tolist())


def _means_by_age(samples: Samples, horizon: int, length: int) -> np.ndarray:
    """Mean loss to go at each age in unrolls; where none was seen, that before."""
    size = -(-horizon // length)
    age = samples.elapsed // length
    count = np.bincount(age, minlength=size)
    total = [np.bincount(age, column, minlength=size) for column in samples.to_go.T]
    means = np.stack(total, axis=1) / np.maximum(count, 1)[:, None]
    seen = np.maximum.accumulate(np.where(count > 0, np.arange(size), 0))
    return means[seen]


def _validated_ridge(
    phi: np.ndarray, target: np.ndarray, tests: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [1 + F, 4] fitted on what is no test, and on all, each penalty the best.

    Args:
        phi: # shape=(n, F)
        target: # shape=(n, 4)
        tests: Where errors are taken. # shape=(n,)
    """
    tried = _ridge(phi[~tests], target[~tests])
    errors = [_errors(phi[tests], weights, target[tests]) for weights in tried]
    best = np.argmin(errors, axis=0)
    columns = np.arange(target.shape[1])
    on_all = _ridge(phi, target)
    return np.stack(tried)[best, :, columns].T, np.stack(on_all)[best, :, columns].T


def _ridge(phi: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """Weights [1 + F, 4] for each of `RIDGES`; the constant is not penalised."""
    mean, target_mean = phi.mean(0), target.mean(0)
    centred = phi - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(phi))
    projected = vectors.T @ (centred.T @ (target - target_mean) / len(phi))
    found = []
    for ridge in RIDGES:
        damped = np.maximum(values, 0) + ridge * values.mean()
        weights = vectors @ (projected / damped[:, None])
        found.append(np.vstack([target_mean - mean @ weights, weights]))
    return found


def _errors(phi: np.ndarray, weights: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.mean((weights[0] + phi @ weights[1:] - target) ** 2, axis=0)
