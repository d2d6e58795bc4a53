"""Compiling for tests that do not ask how a program is compiled."""

from functools import partial
from typing import Any

import jax

jit: Any = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": False,
    },
)
"""`jax.jit` without optimisations that take longer than they save in a short run.

Compiles in a quarter of the time. Not for a comparison to the bit of floats that XLA
may round differently in two programs: there the user's compilation is what is tested.
"""
