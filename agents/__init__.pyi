from .adaptive_sigma import (
    AdaptiveSigma as AdaptiveSigma,
    AdaptiveSigmaState as AdaptiveSigmaState,
)
from .ars import ARS as ARS, ars_direction as ars_direction
from .ask_tell import (
    AskTell as AskTell,
    AskTellState as AskTellState,
    UnrollRequest as UnrollRequest,
)
from .bptt import BPTT as BPTT
from .core.estimator import (
    Estimator as Estimator,
    PerturbingEstimator as PerturbingEstimator,
)
from .core.perturbations import (
    antithetic_perturbations as antithetic_perturbations,
    orthogonal_rows as orthogonal_rows,
)
from .core.report import Report as Report
from .core.shaping import (
    normalize_by_return_std as normalize_by_return_std,
)
from .es import ES as ES, es_gradient as es_gradient
from .gpes import GPES as GPES
from .gru import GRUPolicy as GRUPolicy
from .masked_policy import MaskedPolicy as MaskedPolicy
from .nres import NRES as NRES, episode_noise as episode_noise
from .pes import PES as PES, pes_gradient as pes_gradient
from .pes_analytic import (
    PESAnalytic as PESAnalytic,
    pes_analytic_gradient as pes_analytic_gradient,
)
from .policies import Policy as Policy
from .random_search import RandomSearch as RandomSearch
from .registry import AGENT_NAMES as AGENT_NAMES, AGENTS as AGENTS
from .rtrl import RTRL as RTRL
from .tbptt import TBPTT as TBPTT
from .truncated_es import TruncatedES as TruncatedES
from .uoro import UORO as UORO
