"""`docs/estimators.md`: the tests that it names exist, and its code is correct."""

import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.agents import PES
from pes_rl.envs import DeviceRollout

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/estimators.md").read_text()


@cache
def run_thirty_lines(accumulate: str = "xi + e") -> dict[str, Any]:
    """The names that the page's code leaves, with another accumulator if given."""
    found = re.search(r"<!-- thirty lines -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    code = found[1]
    assert code.count("xi = xi + e") == 1
    names: dict[str, Any] = {}
    exec(code.replace("xi = xi + e", f"xi = {accumulate}"), names)
    return names


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) == PAGE.count("`tests/") > 20
    for path, name in named:
        assert f"\ndef {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_the_thirty_lines_solve_their_problem_only_with_the_accumulator():
    np.testing.assert_allclose(run_thirty_lines()["theta"], -0.5, atol=0.05)
    assert run_thirty_lines("e")["theta"] > 0.5


def test_the_thirty_lines_are_the_package_s_pes():
    """Gradients over an episode under one theta, on the same draws."""
    names = run_thirty_lines()

    class Problem:
        def init(self, key: jax.Array) -> jax.Array:
            del key
            return jnp.ones(2)

        def step(self, theta: jax.Array, state: jax.Array) -> Any:
            return *names["f"](theta, state), jnp.array(False)

    pairs, horizon, theta = names["P"], 10, jnp.array([0.3])
    estimator = PES(pairs, names["K"], names["sigma"])
    rollout = DeviceRollout(Problem(), horizon)
    estimate = jax.jit(partial(estimator.estimate, rollout))
    state = estimator.init(rollout, theta, jax.random.key(0))
    s, xi = jnp.ones((2 * pairs, 2)), jnp.zeros((2 * pairs, 1))
    for update in range(horizon):
        key = jax.random.key(update)
        gradient, s, xi = names["pes"](theta, s, xi, key)
        expected, state, _ = estimate(theta, state, key)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
