"""Environments, and the rollout engine that unrolls them."""

from pes_rl.envs.device import DeviceRollout as DeviceRollout
from pes_rl.envs.episodes import Clock as Clock, Segment as Segment
from pes_rl.envs.final_loss import FinalLoss as FinalLoss
from pes_rl.envs.host import HostRollout as HostRollout
from pes_rl.envs.host_environment import HostEnvironment as HostEnvironment
from pes_rl.envs.observations import ObservationMoments as ObservationMoments
from pes_rl.envs.problem import (
    DeviceEnvironment as DeviceEnvironment,
    PolicyProblem as PolicyProblem,
    Problem as Problem,
)
from pes_rl.envs.registry import (
    environment_names as environment_names,
    make as make,
)
from pes_rl.envs.rollout import (
    EngineLost as EngineLost,
    Particles as Particles,
    Rollout as Rollout,
)
from pes_rl.envs.unrolled.problem import UnrolledProblem as UnrolledProblem
