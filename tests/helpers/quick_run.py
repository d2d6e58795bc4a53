"""Settings of a run that takes a second and logs, evaluates and saves on the way."""

from typing import Any

QUICK: dict[str, Any] = {
    "total_timesteps": 240,
    "num_pairs": 2,
    "truncation_length": 10,
    "horizon": 40,
    "eval_interval": 80,
    "eval_episodes": 2,
    "final_eval_episodes": 2,
    "log_interval": 1,
    "checkpoint_interval": 80,
}
