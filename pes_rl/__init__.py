"""Continuous-control policies trained by Persistent Evolution Strategies."""

__version__ = "0.1.0"

from pes_rl.front_door import Result as Result, train as train
from pes_rl.policy_files import (
    TrainedPolicy as TrainedPolicy,
    load_policy as load_policy,
)
