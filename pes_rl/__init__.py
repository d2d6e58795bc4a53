"""Continuous-control policies trained by Persistent Evolution Strategies."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from pes_rl.policy_files import (
    TrainedPolicy as TrainedPolicy,
    load_policy as load_policy,
)

if TYPE_CHECKING:
    from pes_rl.front_door import Result as Result, train as train
else:  # A type checker that saw this would let every name pass.

    def __getattr__(name: str) -> Any:
        # A policy taken home needs no JAX; training does.
        if name not in ("Result", "train"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pes_rl import front_door

        return getattr(front_door, name)
