"""Policies, and the estimators of their gradients.

A trained policy goes where JAX is not installed, so what needs JAX is imported when it
is first asked for (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pes_rl.agents.policies import Policy as Policy

if TYPE_CHECKING:
    from pes_rl.agents.es import ES as ES, es_gradient as es_gradient
    from pes_rl.agents.estimator import (
        Estimator as Estimator,
        Report as Report,
        antithetic_perturbations as antithetic_perturbations,
        orthogonal_rows as orthogonal_rows,
    )
    from pes_rl.agents.nres import NRES as NRES, episode_noise as episode_noise
    from pes_rl.agents.pes import PES as PES, pes_gradient as pes_gradient
    from pes_rl.agents.shaping import (
        normalize_by_return_std as normalize_by_return_std,
    )
    from pes_rl.agents.truncated_es import TruncatedES as TruncatedES
else:  # A type checker that saw this would let every name pass.
    _MODULES = {
        "es": ("ES", "es_gradient"),
        "estimator": (
            "Estimator",
            "Report",
            "antithetic_perturbations",
            "orthogonal_rows",
        ),
        "nres": ("NRES", "episode_noise"),
        "pes": ("PES", "pes_gradient"),
        "shaping": ("normalize_by_return_std",),
        "truncated_es": ("TruncatedES",),
    }

    def __getattr__(name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


AGENT_NAMES = ("pes", "nres", "es", "truncated-es")
