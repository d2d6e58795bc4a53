"""Settings of the peers, as data: facts of the named files, for tasks of version 5.

RL Baselines3 Zoo (DLR-RM/rl-baselines3-zoo): hyperparams/ars.yml at c6c209e, ppo.yml at
208b6fd (both for -v4), sac.yml at c94924e (for -v3, the newest that could be read).
Evotorch: configuration `walker` of examples/scripts/rl_clipup.py at 13bdaf1.
"""

from typing import Any

Settings = dict[str, Any]

ARS: dict[str, Settings] = {
    "halfcheetah": {
        "n_delta": 32,
        "n_top": 4,
        "delta_std": 0.03,
        "learning_rate": 0.02,
        "alive_bonus_offset": 0,
    },
    "hopper": {
        "n_delta": 8,
        "n_top": 4,
        "delta_std": 0.025,
        "learning_rate": 0.01,
        "alive_bonus_offset": -1,
    },
    "walker2d": {
        "n_delta": 40,
        "n_top": 30,
        "delta_std": 0.025,
        "learning_rate": 0.03,
        "alive_bonus_offset": -1,
    },
    "swimmer": {
        "n_delta": 1,
        "n_top": 1,
        "delta_std": 0.01,
        "learning_rate": 0.02,
        "alive_bonus_offset": 0,
    },
}
"""LinearPolicy; observations are normalised on all tasks but Swimmer, rewards never."""

PPO: dict[str, Settings] = {
    "halfcheetah": {
        "batch_size": 64,
        "n_steps": 512,
        "gamma": 0.98,
        "learning_rate": 2.0633e-05,
        "ent_coef": 0.000401762,
        "clip_range": 0.1,
        "n_epochs": 20,
        "gae_lambda": 0.92,
        "max_grad_norm": 0.8,
        "vf_coef": 0.58096,
    },
    "hopper": {
        "batch_size": 32,
        "n_steps": 512,
        "gamma": 0.999,
        "learning_rate": 9.80828e-05,
        "ent_coef": 0.00229519,
        "clip_range": 0.2,
        "n_epochs": 5,
        "gae_lambda": 0.99,
        "max_grad_norm": 0.7,
        "vf_coef": 0.835671,
    },
    "walker2d": {
        "batch_size": 32,
        "n_steps": 512,
        "gamma": 0.99,
        "learning_rate": 5.05041e-05,
        "ent_coef": 0.000585045,
        "clip_range": 0.1,
        "n_epochs": 20,
        "gae_lambda": 0.95,
        "max_grad_norm": 1.0,
        "vf_coef": 0.871923,
    },
    "swimmer": {
        "batch_size": 256,
        "n_steps": 1024,
        "gamma": 0.9999,
        "learning_rate": 6e-4,
        "gae_lambda": 0.98,
    },
}
"""MlpPolicy; observations and rewards are normalised, the latter with this gamma.

Swimmer has the library's own network, the others two layers of 256 with ReLU,
log_std_init = -2 and no orthogonal initialisation.
"""

PPO_ENVIRONMENTS = {"halfcheetah": 1, "hopper": 1, "walker2d": 1, "swimmer": 4}

SAC: dict[str, Settings] = {
    "halfcheetah": {"learning_starts": 10_000},
    "hopper": {"learning_starts": 10_000},
    "walker2d": {"learning_starts": 10_000},
    "swimmer": {"learning_starts": 10_000, "gamma": 0.9999},
}
"""MlpPolicy; nothing is normalised, all else is the library's default."""

MAX_SPEED = 0.015
PGPE: Settings = {
    "popsize": 100,
    "popsize_max": 800,
    "num_interactions": 75_000,
    "center_learning_rate": 0.75 * MAX_SPEED,
    "stdev_learning_rate": 0.1,
    "stdev_max_change": 0.2,
    "radius_init": 15 * MAX_SPEED,
    "optimizer": "clipup",
    "optimizer_config": {"max_speed": MAX_SPEED, "momentum": 0.9},
}
"""Walker2d's, for all four tasks: linear policy with bias, normalised observations."""

SURVIVAL_BONUS = {"halfcheetah": 0.0, "hopper": 1.0, "walker2d": 1.0, "swimmer": 0.0}
"""What PGPE takes off each reward in training, as its example does on Walker2d."""
