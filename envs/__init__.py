"""Environments, and the rollout engine that unrolls them."""

from pes_rl.envs.names import environment_names as environment_names
from pes_rl.envs.registry import make as make
from pes_rl.envs.rollout.base import (
    EngineLost as EngineLost,
    Particles as Particles,
    Rollout as Rollout,
)
from pes_rl.envs.rollout.device import DeviceRollout as DeviceRollout
from pes_rl.envs.rollout.environment import (
    DeviceEnvironment as DeviceEnvironment,
    HostEnvironment as HostEnvironment,
    PolicyProblem as PolicyProblem,
    Problem as Problem,
)
from pes_rl.envs.rollout.episodes import Clock as Clock, Segment as Segment
from pes_rl.envs.rollout.host import HostRollout as HostRollout
from pes_rl.envs.rollout.observations import ObservationMoments as ObservationMoments
from pes_rl.envs.unrolled.problem import (
    FinalLoss as FinalLoss,
    UnrolledProblem as UnrolledProblem,
)
