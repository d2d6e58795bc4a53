"""Default settings of each task and agent, as data, with their source."""

from typing import Any

Settings = dict[str, Any]

# Chosen on seeds 100 to 115 of the task; the comparison on other seeds is
# results/swimmer. The published settings (PES paper, code for control: 10 pairs, sigma
# 0.3 throughout, no clipping, constant rate) end lower and less surely.
_SWIMMER: Settings = {
    "policy": "linear",
    "bias": False,
    "optimizer": "sgd",
    "normalize_returns": True,
    "learning_rate_decay": "linear",
    # What the paper's figure and ARS's table call solved. Gymnasium's own threshold is
    # 360, which no linear policy of the published settings reached.
    "threshold": 340.0,
}

# Untuned but for inverted_pendulum, on which they reach the maximum return.
_BRAX: Settings = {
    "total_timesteps": 2_000_000,
    "eval_interval": 100_000,
    "eval_episodes": 32,
    "checkpoint_interval": 500_000,
    "sigma": 0.1,
    "optimizer": "adam",
    "learning_rate": 0.02,
    "learning_rate_decay": "linear",
}

DEFAULTS: dict[str, dict[str, Settings]] = {
    "swimmer": {
        "pes": {
            **_SWIMMER,
            "num_pairs": 20,
            "truncation_length": 100,
            "stagger": True,
            "sigma": 0.3,
            "final_sigma": 0.06,
            "learning_rate": 0.1,
            "log_interval": 5,
        },
        "es": {
            **_SWIMMER,
            "num_pairs": 10,
            "sigma": 0.3,
            "final_sigma": 0.06,
            "learning_rate": 0.3,
            "log_interval": 1,
        },
        # The paper's, with the rate's decay; no setting tried leaves the plateau.
        "truncated-es": {
            **_SWIMMER,
            "num_pairs": 10,
            "truncation_length": 100,
            "sigma": 0.1,
            "learning_rate": 0.1,
            "log_interval": 5,
        },
    },
    "brax": {
        "pes": {**_BRAX, "num_pairs": 64, "truncation_length": 50, "stagger": True},
        "es": {**_BRAX, "num_pairs": 16, "log_interval": 1},
        "truncated-es": {**_BRAX, "num_pairs": 64, "truncation_length": 50},
    },
}
"""By environment name or its family (what stands before the colon), then by agent."""


def task_defaults(env: str, agent: str) -> Settings:
    """Settings that differ from `TrainConfig`'s own for this environment and agent."""
    family = env.partition(":")[0]
    by_agent = DEFAULTS.get(env) or DEFAULTS.get(family) or {}
    return dict(by_agent.get(agent, {}))
