"""The commands run under JAX's standard promotion, as users' do: optax needs it."""

import jax
import pytest


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield
