"""Policies, and the estimators of their gradients."""

from pes_rl.agents.es import ES as ES, es_gradient as es_gradient
from pes_rl.agents.estimator import (
    Estimator as Estimator,
    Report as Report,
    antithetic_perturbations as antithetic_perturbations,
)
from pes_rl.agents.nres import NRES as NRES, episode_noise as episode_noise
from pes_rl.agents.pes import PES as PES, pes_gradient as pes_gradient
from pes_rl.agents.policies import Policy as Policy
from pes_rl.agents.shaping import (
    normalize_by_return_std as normalize_by_return_std,
)
from pes_rl.agents.truncated_es import TruncatedES as TruncatedES

AGENT_NAMES = ("pes", "nres", "es", "truncated-es")
