"""Continuous-control policies trained by Persistent Evolution Strategies."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from pes_rl.policy_files import (
    TrainedPolicy as TrainedPolicy,
    load_policy as load_policy,
)

if TYPE_CHECKING:
    from pes_rl.callbacks import Callback as Callback, Run as Run
    from pes_rl.evaluation import Evaluation as Evaluation
    from pes_rl.front_door import Result as Result, train as train
else:  # A type checker that saw this would let every name pass.
    # A policy taken home needs no JAX; training does.
    _LAZY = {
        "Callback": "callbacks",
        "Run": "callbacks",
        "Evaluation": "evaluation",
        "Result": "front_door",
        "train": "front_door",
    }

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
