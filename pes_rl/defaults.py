"""Default settings of each task and agent, as data, with their source."""

from typing import Any

_SWIMMER = {
    "policy": "linear",
    "bias": False,
    # Solved, in the paper's figure and in ARS's table, is about 340; Gymnasium's own
    # threshold of 360 is above what linear policies reach.
    "threshold": 340.0,
}

_BRAX = {
    "policy": "linear",
    "total_timesteps": 2_000_000,
    "eval_interval": 100_000,
    "optimizer": "adam",
    "learning_rate": 0.02,
    "learning_rate_decay": "linear",
}

DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "swimmer": {
        "pes": {**_SWIMMER, "num_pairs": 10, "truncation_length": 100, "sigma": 0.3},
        "es": {**_SWIMMER},
        "truncated-es": {**_SWIMMER, "truncation_length": 100},
    },
    "brax": {
        "pes": {**_BRAX, "num_pairs": 64, "truncation_length": 50, "stagger": True},
        "es": {**_BRAX, "num_pairs": 16},
        "truncated-es": {**_BRAX, "num_pairs": 64, "truncation_length": 50},
    },
}
"""By environment name or its family (what stands before the colon), then by agent."""


def task_defaults(env: str, agent: str) -> dict[str, Any]:
    """Settings that differ from `TrainConfig`'s own for this environment and agent."""
    family = env.partition(":")[0]
    by_agent = DEFAULTS.get(env) or DEFAULTS.get(family) or {}
    return dict(by_agent.get(agent, {}))
