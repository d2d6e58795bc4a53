"""Policies, and the estimators of their gradients.

A trained policy goes where JAX is not installed, so what needs JAX is imported when it
is first asked for (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pes_rl.agents.policies import Policy as Policy

if TYPE_CHECKING:
    from pes_rl.agents.ars import ARS as ARS, ars_direction as ars_direction
    from pes_rl.agents.bptt import BPTT as BPTT
    from pes_rl.agents.es import ES as ES, es_gradient as es_gradient
    from pes_rl.agents.estimator import (
        Estimator as Estimator,
        PerturbingEstimator as PerturbingEstimator,
        Report as Report,
    )
    from pes_rl.agents.gpes import GPES as GPES
    from pes_rl.agents.nres import NRES as NRES, episode_noise as episode_noise
    from pes_rl.agents.perturbations import (
        antithetic_perturbations as antithetic_perturbations,
        orthogonal_rows as orthogonal_rows,
    )
    from pes_rl.agents.pes import PES as PES, pes_gradient as pes_gradient
    from pes_rl.agents.pes_analytic import (
        PESAnalytic as PESAnalytic,
        pes_analytic_gradient as pes_analytic_gradient,
    )
    from pes_rl.agents.random_search import RandomSearch as RandomSearch
    from pes_rl.agents.registry import AGENT_NAMES as AGENT_NAMES, AGENTS as AGENTS
    from pes_rl.agents.rtrl import RTRL as RTRL
    from pes_rl.agents.shaping import (
        normalize_by_return_std as normalize_by_return_std,
    )
    from pes_rl.agents.tbptt import TBPTT as TBPTT
    from pes_rl.agents.truncated_es import TruncatedES as TruncatedES
    from pes_rl.agents.uoro import UORO as UORO
else:  # A type checker that saw this would let every name pass.
    _MODULES = {
        "ars": ("ARS", "ars_direction"),
        "bptt": ("BPTT",),
        "es": ("ES", "es_gradient"),
        "estimator": ("Estimator", "PerturbingEstimator", "Report"),
        "gpes": ("GPES",),
        "nres": ("NRES", "episode_noise"),
        "perturbations": ("antithetic_perturbations", "orthogonal_rows"),
        "pes": ("PES", "pes_gradient"),
        "pes_analytic": ("PESAnalytic", "pes_analytic_gradient"),
        "random_search": ("RandomSearch",),
        "registry": ("AGENT_NAMES", "AGENTS"),
        "rtrl": ("RTRL",),
        "shaping": ("normalize_by_return_std",),
        "tbptt": ("TBPTT",),
        "truncated_es": ("TruncatedES",),
        "uoro": ("UORO",),
    }

    def __getattr__(name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
