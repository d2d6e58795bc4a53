from .names import environment_names as environment_names
from .registry import make as make
from .rollout.base import (
    EngineLost as EngineLost,
    Particles as Particles,
    Rollout as Rollout,
)
from .rollout.device import DeviceRollout as DeviceRollout
from .rollout.environment import (
    DeviceEnvironment as DeviceEnvironment,
    HostEnvironment as HostEnvironment,
    PolicyProblem as PolicyProblem,
    Problem as Problem,
)
from .rollout.episodes import Clock as Clock, Segment as Segment
from .rollout.host import HostRollout as HostRollout
from .rollout.observations import ObservationMoments as ObservationMoments
from .rollout.recurrent import (
    CarryingEnvironment as CarryingEnvironment,
    RecurrentHostRollout as RecurrentHostRollout,
    RecurrentProblem as RecurrentProblem,
)
from .unrolled.problem import (
    FinalLoss as FinalLoss,
    UnrolledProblem as UnrolledProblem,
)
