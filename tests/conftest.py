"""Strict JAX for all tests, and the tests' own helper modules made importable."""

import os
import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

# One module of machine code a program instead of up to 32: the same code, compiled with
# a tenth less work. XLA reads this when it first computes; programs that tests start
# read it too.
_FLAG = "--xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Compile once what several test processes and commands need."""
    if not hasattr(config, "cache"):  # -p no:cacheprovider
        return
    options = {
        "jax_compilation_cache_dir": str(config.cache.mkdir("jax")),
        # All programs: the many small ones of a run take as long as the large ones.
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    for name, value in options.items():
        os.environ.setdefault(name.upper(), str(value))
        jax.config.update(name, value)


@pytest.fixture
def float64():
    """Double precision on the device for one test."""
    with jax.enable_x64(True):
        yield
