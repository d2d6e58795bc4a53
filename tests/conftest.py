"""Strict JAX for all tests, and the tests' own helper modules made importable."""

import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent))

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
