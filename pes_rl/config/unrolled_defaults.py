"""Default settings of the unrolled problems, as data, with their source.

Published settings, from the PES paper's code; it counts particles, N = 2P, and its
budgets are in updates: total_timesteps = updates N K. Ends never depend on theta, so
beginning at once is unbiased, and no step is idle. Where a run is the same in every
episode, one episode evaluates it.
"""

from collections.abc import Mapping

from pes_rl.config.agent_settings import Settings

_INFLUENCE: Settings = {
    "total_timesteps": 3_000_000,
    "num_pairs": 500,
    "sigma": 0.1,
    "optimizer": "sgd",
    "learning_rate": 1e-4,
    "eval_interval": 100_000,
    "eval_episodes": 1,
    "final_eval_episodes": 1,
    "log_interval": 50,
    "checkpoint_interval": 1_000_000,
    "threshold": -1e-9,
}
_TOY: Settings = {
    "total_timesteps": 20_000_000,
    "num_pairs": 50,
    "sigma": 0.3,
    "optimizer": "adam",
    "adam_b1": 0.99,
    "learning_rate": 0.01,
    "eval_interval": 100_000,
    "eval_episodes": 1,
    "final_eval_episodes": 1,
    "log_interval": 100,
    "checkpoint_interval": 5_000_000,
    "threshold": -600.0,
}
# MNIST needs its data: --env-kwargs '{"data": "mnist"}'.
_LR_SCHEDULE: Settings = {
    "total_timesteps": 50_000_000,  # published: 5000 updates, K = 10
    "num_pairs": 500,
    "sigma": 0.1,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "eval_interval": 1_000_000,
    "eval_episodes": 4,
    "final_eval_episodes": 10,
    "log_interval": 10,
    "checkpoint_interval": 1_000_000,
}
_MLP: Settings = {
    "total_timesteps": 5_000_000,
    "num_pairs": 5,
    "sigma": 0.3,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "eval_interval": 50_000,
    "eval_episodes": 10,
    "final_eval_episodes": 10,
    "log_interval": 50,
    "checkpoint_interval": 500_000,
}
_L2: Settings = {
    "total_timesteps": 200_000,
    "num_pairs": 2,
    "sigma": 0.01,
    "optimizer": "adam",
    "learning_rate": 0.003,
    "eval_interval": 10_000,
    "eval_episodes": 1,
    "final_eval_episodes": 1,
    "log_interval": 500,
    "checkpoint_interval": 100_000,
}
# The noise-reuse paper's, for its optimiser; the PES paper's are not known.
_LEARNED: Settings = {
    "total_timesteps": 10_000_000,
    "num_pairs": 100,
    "sigma": 0.01,
    "optimizer": "adam",
    "learning_rate": 3e-4,
    "eval_interval": 500_000,
    "eval_episodes": 4,
    "final_eval_episodes": 10,
    "log_interval": 50,
    "checkpoint_interval": 1_000_000,
}
# Untuned: the published study measures gradients at a fixed theta and trains nothing.
_LSTM: Settings = {**_LEARNED, "eval_episodes": 1, "final_eval_episodes": 1}


def _unrolled(
    settings: Settings,
    truncation_length: int,
    *,
    endless: bool = False,
    but: Mapping[str, Settings] | None = None,
) -> dict[str, Settings]:
    """Settings of each agent that can run, with what is other for some of them."""
    partial = {**settings, "truncation_length": truncation_length}
    agents = {
        "pes": {**partial, "restart_at_once": True},
        "gpes": {**partial, "noise_period": 10 * truncation_length},
        "nres": partial,
        "pes-analytic": partial,
        "truncated-es": partial,
    }
    # A single particle of theta itself, as in the published code, where RTRL and UORO
    # step it once an update.
    shared = {k: v for k, v in settings.items() if k not in ("num_pairs", "sigma")}
    mean = {**shared, "num_particles": 1}
    step_by_step = {**mean, "truncation_length": 1}
    agents["tbptt"] = {**mean, "truncation_length": truncation_length}
    agents |= {"rtrl": step_by_step, "uoro": step_by_step}
    if not endless:
        whole = {**settings, "log_interval": 1}
        agents |= {
            "es": whole,
            "ars": {**whole, "num_top_pairs": max(settings["num_pairs"] // 2, 1)},
            "bptt": mean,
            "random-search": {
                **mean,
                "num_particles": 10,
                "search_radius": 3.0,
                "optimizer": "sgd",
                "learning_rate": 1.0,
                "log_interval": 1,
            },
        }
    return {
        agent: {**own, **(but or {}).get(agent, {})} for agent, own in agents.items()
    }


UNROLLED_DEFAULTS: dict[str, dict[str, Settings]] = {
    "unrolled:influence-balancing": _unrolled(
        _INFLUENCE, 1, endless=True, but={"uoro": {"learning_rate": 1e-5}}
    ),
    "unrolled:toy-regression": _unrolled(
        _TOY, 10, but={"truncated-es": {"sigma": 1.0}}
    ),
    "unrolled:lr-schedule": _unrolled(_LR_SCHEDULE, 10),
    "unrolled:mlp-hyperparameters": _unrolled(
        _MLP,
        10,
        but={"random-search": {"search_radius": None}},  # the published bounds
    ),
    "unrolled:l2-regression": _unrolled(_L2, 1, endless=True),
    "unrolled:learned-optimizer": _unrolled(_LEARNED, 10),
    "unrolled:lstm": _unrolled(_LSTM, 10),
}
"""By problem, then by agent."""
