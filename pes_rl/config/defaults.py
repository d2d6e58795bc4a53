"""Default settings of each task and agent, as data, with their source."""

from collections.abc import Collection

from pes_rl.config.unrolled_defaults import UNROLLED_DEFAULTS, Settings

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

_BUDGET: Settings = {
    "total_timesteps": 2_000_000,
    "eval_interval": 100_000,
    "eval_episodes": 16,
    "checkpoint_interval": 500_000,
}
# For tasks without settings of their own. Chosen on Gymnasium's CartPole, Acrobot,
# MountainCarContinuous, LunarLander (seeds 100, 101) and Pendulum (100 to 107); ten
# other seeds, and what else was tried, are in results/gymnasium_general. The step is
# divided by the standard deviation of the returns, and observations are normalised, so
# the scales of rewards and observations do not matter.
_GENERAL: Settings = {
    **_BUDGET,
    "policy": "mlp",
    "hidden_sizes": (16, 16),
    "normalize_observations": True,
    "num_pairs": 8,
    "sigma": 0.3,
    "optimizer": "sgd",
    "normalize_returns": True,
    "learning_rate": 0.3,
    "learning_rate_decay": "linear",
}
# Untuned, for MuJoCo tasks and unrolled problems.
_UNTUNED: Settings = {
    **_BUDGET,
    "num_pairs": 32,
    "sigma": 0.1,
    "optimizer": "sgd",
    "normalize_returns": True,
    "learning_rate": 0.1,
    "learning_rate_decay": "linear",
}
_DERIVATIVE: Settings = {**_BUDGET, "num_particles": 32, "optimizer": "adam"}
_RANDOM_SEARCH: Settings = {
    **_BUDGET,
    "num_particles": 64,
    "search_radius": 1.0,
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "log_interval": 1,
}
# Chosen on brax:inverted_pendulum, seeds 0 and 1, which needs large gains.
_PENDULUM: Settings = {
    **_UNTUNED,
    "total_timesteps": 200_000,
    "eval_interval": 20_000,
    "num_pairs": 16,
    "sigma": 0.5,
    "learning_rate": 0.3,
    "bias": False,
    # The longest episode at a reward of 1 a step.
    "threshold": 1000.0,
}


def _all_agents(
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


# Sigma and rate are near those of ARS's table, and so are the normalised observations.
# The survival bonus of 1 is taken off where there is one.
_RUNNING: Settings = {
    **_UNTUNED,
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


def _runners(general: Settings, nres: Settings, ars: Settings) -> dict[str, Settings]:
    """All agents of a runner; `es` and `nres` take more updates, with 8 pairs."""
    usual = _all_agents(general, 100, orthogonal=True)
    changes = {
        "nres": {"num_pairs": 8, **nres},
        "es": {"num_pairs": 8},
        "ars": ars,
    }
    return {agent: {**usual[agent], **changes.get(agent, {})} for agent in usual}


_ALL_UNTUNED = _all_agents(_UNTUNED, 100)
_FAMILIES = ("gym:", "brax:", "gymnax:", "playground:", "jax:", "python:")
"""Beginnings of the names of environments, whose parameters are those of a policy."""

DEFAULTS: dict[str, dict[str, Settings]] = {
    **UNROLLED_DEFAULTS,
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
    "": _all_agents(_GENERAL, 100, orthogonal=True),
    # Settings of ars are those of its paper and of the RL zoo.
    "halfcheetah": _runners(
        _CHEETAH, {"learning_rate": 0.005}, {"num_pairs": 32, "num_top_pairs": 4}
    ),
    "hopper": _runners(
        _HOPPER,
        {"truncation_length": 500},
        {"num_pairs": 8, "num_top_pairs": 4, "sigma": 0.025, "learning_rate": 0.01},
    ),
    "walker2d": _all_agents(_HOPPING, 100),
    "ant": _ALL_UNTUNED,
    "humanoid": _ALL_UNTUNED,
    "humanoidstandup": _ALL_UNTUNED,
    # Nothing was learned in 200,000 steps without normalised observations.
    "inverted_double_pendulum": _all_agents(
        {
            **_UNTUNED,
            "num_pairs": 16,
            "sigma": 0.3,
            "learning_rate": 0.5,
            "normalize_observations": True,
            "threshold": 9100.0,
        },
        100,
    ),
    "reacher": _all_agents(_UNTUNED, 25),  # of episodes of 50 steps
    "pusher": _all_agents(_UNTUNED, 50),  # of 100
    "brax:inverted_pendulum": {
        **_ALL_UNTUNED,
        "pes": {**_PENDULUM, "truncation_length": 100},
        "nres": {**_PENDULUM, "truncation_length": 100},
        "es": {**_PENDULUM, "log_interval": 1},
        "truncated-es": {**_PENDULUM, "truncation_length": 100},
    },
}
"""By environment, then by agent; "" stands for all others of either."""

# Untuned: the settings of the most similar agents.
_NRES, _ES = DEFAULTS["swimmer"]["nres"], DEFAULTS["swimmer"]["es"]
DEFAULTS["swimmer"]["gpes"] = {**_NRES, "noise_period": 250}
DEFAULTS["swimmer"]["ars"] = {
    **_ES,
    "num_top_pairs": 10,
    "normalize_returns": False,
    "orthogonal": False,
}

# The same task on another engine.
DEFAULTS["jax:swimmer"] = DEFAULTS["swimmer"]
DEFAULTS["inverted_pendulum"] = DEFAULTS["brax:inverted_pendulum"]


BEST_AGENTS = {
    # 50 of 50 seeds solve it, in a median of 60,000 steps; PES 49 and 160,000, full ES
    # 49 and 120,000 (results/swimmer_50_seeds).
    "swimmer": "nres",
    "jax:swimmer": "nres",
    # Of what was tried on seeds 100 to 103 (results/locomotion).
    "halfcheetah": "nres",
    "hopper": "nres",
}
"""The agent of a run that names none, where one is ahead on the task."""


def default_agent(env: str | None, given: Collection[str] = ()) -> str:
    """The agent of a run that names none.

    It is the one of `BEST_AGENTS`, `es` for tasks without settings of their own, and
    else `pes`. On Pendulum and LunarLander `es` learned more than `pes` and `nres` at
    the same settings (two seeds each; the study of Gymnasium's tasks has the numbers).
    Its updates take whole episodes; where these are long, `pes` and `nres` take more
    updates.

    Args:
        env: Name of the environment; None for the command's own.
        given: Names of the settings that are given; a `truncation_length` asks for an
            agent that has one, `pes` in place of `es`.
    """
    env = "swimmer" if env is None else env
    general = env not in DEFAULTS and env.startswith(_FAMILIES)
    best = BEST_AGENTS.get(env, "es" if general else "pes")
    return "pes" if best == "es" and "truncation_length" in given else best


def task_defaults(env: str, agent: str) -> Settings:
    """Settings that differ from `TrainConfig`'s own for this environment and agent."""
    usual = DEFAULTS[""] if env.startswith(_FAMILIES) else _ALL_UNTUNED
    return dict({**usual, **DEFAULTS.get(env, {})}.get(agent, {}))
