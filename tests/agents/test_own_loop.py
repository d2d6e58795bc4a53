"""Estimators in a loop of one's own: the same numbers under jit, vmap and scan."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recurrent import SIGMA, THETA, Ending, float32

from pes_rl.agents import ES, NRES, PES, TruncatedES
from pes_rl.envs import DeviceRollout

UPDATES, SEEDS = 4, 3
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
ROLLOUT = DeviceRollout(Ending(curvature=0.5), horizon=5)
OPTIMIZER = optax.sgd(0.01, momentum=0.9)
ESTIMATORS: dict[str, Any] = {
    "pes": PES(3, 2, SIGMA, stagger=True, trace_decay=0.9),
    "nres": NRES(3, 2, SIGMA),
    "es": ES(3, SIGMA),
    "truncated-es": TruncatedES(3, 2, SIGMA),
}


def first(estimator: Any, key: jax.Array) -> Any:
    theta = float32(THETA)
    return theta, OPTIMIZER.init(theta), estimator.init(ROLLOUT, theta, key)


def update(estimator: Any, carry: Any, key: jax.Array) -> Any:
    theta, moments, state = carry
    gradient, state, report = estimator.estimate(ROLLOUT, theta, state, key)
    step, moments = OPTIMIZER.update(gradient, moments)
    return (optax.apply_updates(theta, step), moments, state), report.gradient_norm


def keys_of(seed: int) -> jax.Array:
    """Of the start and of the updates."""
    return jax.random.split(jax.random.key(seed), UPDATES + 1)


@pytest.mark.parametrize(
    "name",
    [
        "pes",
        "nres",
        pytest.param("es", marks=pytest.mark.slow),
        pytest.param("truncated-es", marks=pytest.mark.slow),
    ],
)
def test_scan_and_vmap_over_seeds_are_the_python_loop(name):
    """Theta, all of the state and the reports, of three seeds."""
    estimator = ESTIMATORS[name]
    step = jit(lambda carry, key: update(estimator, carry, key))
    by_loop = []
    for seed in range(SEEDS):
        start_key, *keys = keys_of(seed)
        carry, norms = first(estimator, start_key), []
        for key in keys:
            carry, norm = step(carry, key)
            norms.append(norm)
        by_loop.append((carry, jnp.stack(norms)))

    def scanned(keys: jax.Array) -> Any:
        return jax.lax.scan(
            lambda carry, key: update(estimator, carry, key),
            first(estimator, keys[0]),
            keys[1:],
        )

    by_vmap = jit(jax.vmap(scanned))(jnp.stack([keys_of(s) for s in range(SEEDS)]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        by_vmap,
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *by_loop),
    )
    thetas = by_vmap[0][0]
    assert np.ptp(thetas, axis=0).min() > 1e-4  # Each seed goes its own way.


@pytest.mark.slow
def test_the_page_s_code_runs_and_learns():
    """`docs/own_loop.md`, from top to bottom, each part against its best theta."""
    page = (Path(__file__).parents[2] / "docs/own_loop.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction needs it.
        for block in blocks[:3]:
            exec(block, names)
        rates = np.linspace(0.2, 1.9, 1000)[:, None, None]
        curvature = np.array([0.3, 1.0])
        factors = (1 - rates * curvature) ** (2 * np.arange(1, 61)[:, None])
        best = np.log(rates[(curvature * factors).sum((1, 2)).argmin()].item())
        assert float(names["theta"][0]) == pytest.approx(best, abs=0.15)
        np.testing.assert_allclose(names["thetas"][:, 0], best, atol=0.15)
        for block in blocks[3:]:
            exec(block, names)
    losses = names["losses"].sum(0).mean()
    assert losses < 0.5  # At theta = 0 the position falls to 0: 1.25 in 5 steps.
    jax.tree.map(
        np.testing.assert_array_equal, names["copy"].state, names["ask_tell"].state
    )
