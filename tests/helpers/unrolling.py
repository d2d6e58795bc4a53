"""A loop over the steps of an unrolled problem, for tests."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def unroll(problem: Any, theta: Any, length: int, seed: int = 0) -> tuple[Any, Any]:
    """The initial state of an episode and the losses of its first `length` steps."""
    key = jax.random.key(seed)
    theta = jnp.asarray(theta)

    def step(state: Any, _: None) -> Any:
        state, loss, ended = problem.step(theta, state)
        return state, (loss, ended)

    @jax.jit
    def run() -> Any:
        first = problem.init(key)
        return first, lax.scan(step, first, length=length)[1]

    first, (losses, ended) = run()
    assert not ended.any()
    return first, np.asarray(losses)
