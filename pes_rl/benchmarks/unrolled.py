"""Engines for unrolled problems: updates of PES, and what they are compared with."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from pes_rl.assembly.assemble import assemble
from pes_rl.assembly.factories import make_environment
from pes_rl.benchmarks.engines import Row, Run, in_pairs
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs import DeviceRollout
from pes_rl.envs.unrolled import UnrolledProblem


def unrolled_engines(
    env: str, particles: int, env_kwargs: str = "{}"
) -> Iterator[tuple[Row, Run]]:
    """Updates of `pes`, its unrolls alone, PES by hand, and bare unrolls.

    The latter scan over nothing but the problem.

    Args:
        env: Name of the problem.
        particles: Their number, even.
        env_kwargs: The problem's options, as a JSON object.
    """
    config = make_config(env, "pes", num_pairs=particles // 2, env_kwargs=env_kwargs)
    problem, assembly = make_environment(config, env), assemble(config)
    theta = assembly.init_theta(jax.random.key(0))
    state = assembly.learner.init(theta, jax.random.key(1))
    length, sigma = config.truncation_length, config.sigma
    assert length is not None and sigma is not None  # pes has both
    updates = config.log_interval  # as many as training runs in a call
    row = Row("pes_rl", env, particles, None, steps=updates * length)
    yield row, lambda: jax.block_until_ready(assembly.learner.run(state, updates))

    rollout = DeviceRollout(problem, problem.horizon, problem.diverged_loss)
    first = state.estimator.particles
    thetas = theta[None] + in_pairs(sigma, particles // 2, theta.size)

    @jax.jit
    def unrolls(particles: Any) -> Any:
        def unroll(particles: Any, _: None) -> tuple[Any, jax.Array]:
            particles, segment = rollout.unroll(particles, thetas, length)
            return particles, segment.loss.sum(0)

        return lax.scan(unroll, particles, length=updates)

    yield (
        replace(row, engine="pes_rl unrolls"),
        lambda: jax.block_until_ready(unrolls(first)),
    )
    horizon = problem.horizon
    if horizon is not None and horizon % length == 0:
        run = _by_hand(problem, horizon, config, theta, first.state)
        yield replace(row, engine="PES by hand"), run

    @jax.jit
    def bare_unrolls(states: Any) -> Any:
        return lax.scan(
            lambda states, _: _unroll(problem, thetas, states, length),
            states,
            length=updates,
        )

    yield (
        replace(row, engine="bare unrolls"),
        lambda: jax.block_until_ready(bare_unrolls(first.state)),
    )


def _unroll(
    problem: UnrolledProblem, thetas: jax.Array, states: Any, length: int
) -> tuple[Any, jax.Array]:
    def step(states: Any, _: None) -> tuple[Any, jax.Array]:
        states, losses, _terminated = jax.vmap(problem.step)(thetas, states)
        return states, losses

    after, losses = lax.scan(step, states, length=length)
    return after, losses.sum(0)


def _by_hand(
    problem: UnrolledProblem,
    horizon: int,
    config: TrainConfig,
    theta: jax.Array,
    first: Any,
) -> Run:
    """PES written by hand for one problem whose episodes all end together.

    Nothing ends early or diverges, no schedule, no report; the noise is JAX's.
    """
    length, sigma, pairs = config.truncation_length, config.sigma, config.num_pairs
    assert length is not None and sigma is not None and pairs is not None
    optimizer = {"adam": optax.adam, "sgd": optax.sgd}[config.optimizer](
        config.learning_rate
    )
    unrolls_an_episode = horizon // length

    def update(carry: Any, i: jax.Array) -> tuple[Any, jax.Array]:
        theta, moments, states, accumulator = carry
        begins = i % unrolls_an_episode == 0
        states = jax.tree.map(lambda a, b: jnp.where(begins, a, b), first, states)
        accumulator = jnp.where(begins, 0.0, accumulator)
        key = jax.random.fold_in(jax.random.key(0), i)
        noise = sigma * jax.random.normal(key, (pairs, theta.size))
        noise = jnp.stack([noise, -noise], 1).reshape(accumulator.shape)
        states, losses = _unroll(problem, theta[None] + noise, states, length)
        accumulator = accumulator + noise
        gradient = (accumulator * losses[:, None]).mean(0) / sigma**2
        change, moments = optimizer.update(gradient, moments)
        return (theta + change, moments, states, accumulator), losses.mean()

    @jax.jit
    def run(carry: Any) -> Any:
        return lax.scan(update, carry, jnp.arange(config.log_interval))

    accumulator = jnp.zeros((2 * pairs, theta.size))
    carry = (theta, optimizer.init(theta), first, accumulator)
    return lambda: jax.block_until_ready(run(carry))
