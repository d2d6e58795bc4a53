"""Settings that the defaults of several tasks share, for each agent."""

from typing import Any

Settings = dict[str, Any]

BUDGET: Settings = {
    "total_timesteps": 2_000_000,
    "eval_interval": 100_000,
    "eval_episodes": 16,
    "checkpoint_interval": 500_000,
}
# Untuned, for MuJoCo tasks and unrolled problems.
UNTUNED: Settings = {
    **BUDGET,
    "num_pairs": 32,
    "sigma": 0.1,
    "optimizer": "sgd",
    "normalize_returns": True,
    "learning_rate": 0.1,
    "learning_rate_decay": "linear",
}
_DERIVATIVE: Settings = {**BUDGET, "num_particles": 32, "optimizer": "adam"}
_RANDOM_SEARCH: Settings = {
    **BUDGET,
    "num_particles": 64,
    "search_radius": 1.0,
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "log_interval": 1,
}


def all_agents(
    general: Settings, truncation_length: int, *, orthogonal: bool = False
) -> dict[str, Settings]:
    """The same settings for each agent, but for those that an agent does not have."""
    length: Settings = {"truncation_length": truncation_length}
    staggered: Settings = {**length, "stagger": True}
    whole = {**general, "log_interval": 1}
    noise: Settings = {"orthogonal": True} if orthogonal else {}
    period: Settings = {**noise, "noise_period": 2 * truncation_length}
    return {
        "pes": {**general, **staggered},
        "gpes": {**general, **staggered, **period},
        "nres": {**general, **staggered, **noise},
        "pes-analytic": {**general, **staggered},
        "es": {**whole, **noise},
        "truncated-es": {**general, **length},
        "ars": {
            **whole,
            "num_top_pairs": general["num_pairs"] // 2,
            "normalize_returns": False,
        },
        "random-search": _RANDOM_SEARCH,
        "tbptt": {**_DERIVATIVE, **staggered},
        "bptt": {**_DERIVATIVE, "log_interval": 1},
        "rtrl": {**_DERIVATIVE, **staggered},
        "uoro": {**_DERIVATIVE, **staggered},
    }
