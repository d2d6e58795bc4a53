"""Default settings of the MuJoCo tasks, as data, with their source."""

from pes_rl.config.agent_settings import UNTUNED, Settings, all_agents

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

# With a budget of 200,000 steps, whose schedules would end with it, one seed of eight
# (seeds 100 to 107) ends at 259 with pes and one at 247 with nres; with schedules of
# 300,000 all are above 330 and 354, with 500,000 above 300 and 350.
_SHORTEST = 300_000

# Chosen on brax:inverted_pendulum, seeds 0 and 1, which needs large gains.
_PENDULUM: Settings = {
    **UNTUNED,
    "total_timesteps": 200_000,
    "eval_interval": 20_000,
    "num_pairs": 16,
    "sigma": 0.5,
    "learning_rate": 0.3,
    "bias": False,
    # The longest episode at a reward of 1 a step.
    "threshold": 1000.0,
}
# Chosen on seeds 100 to 105; ten other seeds, and all that was tried, are in
# results/locomotion. With a bias es ended at 4542 to 6731, without one above 7600.
_DOUBLE_PENDULUM: Settings = {
    **UNTUNED,
    "total_timesteps": 500_000,
    "eval_interval": 50_000,
    "checkpoint_interval": 250_000,
    "num_pairs": 16,
    "sigma": 0.02,
    "learning_rate": 0.02,
    "bias": False,
    "normalize_observations": True,
    "threshold": 9100.0,
}
# Chosen on seed 100; see there too. The thresholds are what PPO reaches in ten million
# steps.
_REACHING: Settings = {
    **UNTUNED,
    "total_timesteps": 1_000_000,
    "num_pairs": 16,
    "sigma": 0.02,
    "learning_rate": 0.02,
    "normalize_observations": True,
}
_REACHER: Settings = {**_REACHING, "threshold": -5.0}
_PUSHER: Settings = {**_REACHING, "threshold": -45.0}

# Sigma and rate are near those of ARS's table, and so are the normalised observations.
# The survival bonus of 1 is taken off where there is one.
_RUNNING: Settings = {
    **UNTUNED,
    "num_pairs": 16,
    "sigma": 0.03,
    "learning_rate": 0.02,
    "normalize_observations": True,
}
_HOPPING: Settings = {
    **_RUNNING,
    "sigma": 0.05,
    "learning_rate": 0.03,
    "reward_shift": 1.0,
}
# Chosen on seeds 100 to 109; ten other seeds, and all that was tried, are in
# results/locomotion. Orthogonal perturbations count most: nres with 16 pairs ended at
# 3131 without and at 4445 with them (two seeds, 2,000,000 steps). A rate of 0.02 is too
# high for this budget: 4197 after 2,000,000 steps, and 2513 after 5,000,000 on others.
_CHEETAH: Settings = {
    **_RUNNING,
    "total_timesteps": 5_000_000,
    "eval_interval": 250_000,
    "checkpoint_interval": 1_000_000,
    "threshold": 4800.0,  # Gymnasium's
}
# Chosen on seeds 100 and 101; see there too. Budgets above this one were not tried.
_HOPPER: Settings = {
    **_HOPPING,
    "total_timesteps": 1_000_000,
    "eval_interval": 50_000,
    "checkpoint_interval": 250_000,
    "threshold": 3000.0,
}
# Chosen on seeds 100 to 102, 10 and 11; see there too. es ended above 800 on each that
# it was tried on. nres with 16 pairs is at 2613 on one, and learned to fall at once on
# another: without the bonus of survival a fall ends the cost of moving.
_WALKER: Settings = {**_HOPPING, "sigma": 0.03, "threshold": 4000.0}


_FEW_PAIRS: Settings = {"num_pairs": 8, "orthogonal": True}


def _with_few_pairs(general: Settings, truncation_length: int) -> dict[str, Settings]:
    """All agents; `es` and `nres` take more updates, with 8 pairs."""
    usual = all_agents(general, truncation_length, orthogonal=True)
    few = {agent: {**usual[agent], **_FEW_PAIRS} for agent in ("es", "nres")}
    return {**usual, **few}


def _runners(general: Settings, nres: Settings, ars: Settings) -> dict[str, Settings]:
    """All agents of a runner, with what is other for two of them."""
    usual = _with_few_pairs(general, 100)
    others = {"nres": {**usual["nres"], **nres}, "ars": {**usual["ars"], **ars}}
    return {**usual, **others}


_ALL_UNTUNED = all_agents(UNTUNED, 100)
_BRAX_PENDULUM = {
    **_ALL_UNTUNED,
    "pes": {**_PENDULUM, "truncation_length": 100},
    "nres": {**_PENDULUM, "truncation_length": 100},
    "es": {**_PENDULUM, "log_interval": 1},
    "truncated-es": {**_PENDULUM, "truncation_length": 100},
}

MUJOCO_DEFAULTS: dict[str, dict[str, Settings]] = {
    "swimmer": {
        **_ALL_UNTUNED,
        "pes": {
            **_SWIMMER,
            "num_pairs": 20,
            "truncation_length": 100,
            "stagger": True,
            # No end depends on the policy here, so restarting at once is unbiased, and
            # the staggered phases, 50 steps apart, stay where they are.
            "restart_at_once": True,
            "sigma": 0.3,
            "final_sigma": 0.06,
            "learning_rate": 0.1,
            "min_schedule_timesteps": _SHORTEST,
            "log_interval": 5,
        },
        # Chosen on seeds 100 to 115 and 300 to 347, orthogonal on 1000 to 1047. With 8
        # or 10 pairs the median is as early, and 6 to 8 of 48 seeds are not at 340 by
        # 200,000 steps.
        "nres": {
            **_SWIMMER,
            "num_pairs": 20,
            "truncation_length": 50,
            "stagger": True,
            "orthogonal": True,
            "sigma": 0.2,
            "final_sigma": 0.05,
            "learning_rate": 0.2,
            "min_schedule_timesteps": _SHORTEST,
            "log_interval": 5,
        },
        "es": {
            **_SWIMMER,
            "num_pairs": 10,
            "orthogonal": True,
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
    # Settings of ars are those of its paper and of the RL zoo.
    "halfcheetah": _runners(
        _CHEETAH, {"learning_rate": 0.005}, {"num_pairs": 32, "num_top_pairs": 4}
    ),
    "hopper": _runners(
        _HOPPER,
        {"truncation_length": 500},
        {"num_pairs": 8, "num_top_pairs": 4, "sigma": 0.025, "learning_rate": 0.01},
    ),
    "walker2d": _runners(
        _WALKER,
        {"num_pairs": 16, "sigma": 0.05},
        {"num_pairs": 40, "num_top_pairs": 30, "sigma": 0.025},
    ),
    "ant": _ALL_UNTUNED,
    "humanoid": _ALL_UNTUNED,
    "humanoidstandup": _ALL_UNTUNED,
    # es: seeds 100 and 101; see there too.
    "inverted_pendulum": {
        **_BRAX_PENDULUM,
        "es": {**_BRAX_PENDULUM["es"], **_FEW_PAIRS, "normalize_observations": True},
    },
    "inverted_double_pendulum": _with_few_pairs(_DOUBLE_PENDULUM, 100),
    "reacher": all_agents(_REACHER, 25, orthogonal=True),  # of episodes of 50 steps
    "pusher": _with_few_pairs(_PUSHER, 50),  # of 100
    "brax:inverted_pendulum": _BRAX_PENDULUM,
}
"""By task, then by agent."""

# Untuned: the settings of the most similar agents.
_NRES, _ES = MUJOCO_DEFAULTS["swimmer"]["nres"], MUJOCO_DEFAULTS["swimmer"]["es"]
MUJOCO_DEFAULTS["swimmer"]["gpes"] = {**_NRES, "noise_period": 250}
MUJOCO_DEFAULTS["swimmer"]["ars"] = {
    **_ES,
    "num_top_pairs": 10,
    "normalize_returns": False,
    "orthogonal": False,
}

# The same task on another engine.
MUJOCO_DEFAULTS["jax:swimmer"] = MUJOCO_DEFAULTS["swimmer"]
