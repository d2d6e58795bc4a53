"""Strict JAX for all tests, and the tests' own helper modules made importable."""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from jax._src import compiler

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

# XLA compiles in half the time without optimisation, with its older code for fused
# operations, and with one module of machine code for each program. It reads this when
# it first computes; programs that tests start read it too. Tests for which it matters
# how XLA fuses and rounds are marked `user_compilation`.
_QUICK = (
    "xla_backend_optimization_level=0",
    "xla_cpu_use_fusion_emitters=false",
    "xla_cpu_parallel_codegen_split_count=1",
)
_DEFAULTS = [
    ("xla_backend_optimization_level", 3),
    ("xla_cpu_use_fusion_emitters", True),
]
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), *(f"--{flag}" for flag in _QUICK)]
)

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


@pytest.fixture(scope="module", autouse=True)
def compilation(request: pytest.FixtureRequest):
    """Compile the programs of a module as users do, where it is so marked."""
    if request.node.get_closest_marker("user_compilation") is None:
        yield
        return
    quick_options = compiler.get_compile_options

    def user_options(*args: Any, **kwargs: Any) -> Any:
        options = quick_options(*args, **kwargs)
        options.env_option_overrides += _DEFAULTS
        return options

    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", user_options)
        yield
    jax.clear_caches()


@pytest.fixture
def float64():
    """Double precision on the device for one test."""
    with jax.enable_x64(True):
        yield
