"""Strict JAX for all tests, and the tests' own helper modules made importable."""

import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def float64():
    """Double precision on the device for one test."""
    with jax.enable_x64(True):
        yield
