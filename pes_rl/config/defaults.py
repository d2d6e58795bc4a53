"""Default settings of each task and agent, as data, with their source."""

from collections.abc import Collection

from pes_rl.config.agent_settings import BUDGET, UNTUNED, Settings, all_agents
from pes_rl.config.mujoco_defaults import MUJOCO_DEFAULTS
from pes_rl.config.unrolled_defaults import UNROLLED_DEFAULTS

# For tasks without settings of their own. Chosen on Gymnasium's CartPole, Acrobot,
# MountainCarContinuous, LunarLander (seeds 100, 101) and Pendulum (100 to 107); ten
# other seeds, and what else was tried, are in results/gymnasium_general. The step is
# divided by the standard deviation of the returns, and observations are normalised, so
# the scales of rewards and observations do not matter.
_GENERAL: Settings = {
    **BUDGET,
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

_ALL_UNTUNED = all_agents(UNTUNED, 100)
_FAMILIES = ("gym:", "brax:", "gymnax:", "playground:", "jax:", "python:")
"""Beginnings of the names of environments, whose parameters are those of a policy."""

DEFAULTS: dict[str, dict[str, Settings]] = {
    **UNROLLED_DEFAULTS,
    **MUJOCO_DEFAULTS,
    "": all_agents(_GENERAL, 100, orthogonal=True),
}
"""By environment, then by agent; "" stands for all others of either."""


BEST_AGENTS = {
    # 50 of 50 seeds solve it, in a median of 60,000 steps; PES 49 and 160,000, full ES
    # 49 and 120,000 (results/swimmer_50_seeds).
    "swimmer": "nres",
    "jax:swimmer": "nres",
    # Of what was tried on seeds that no report has (results/locomotion).
    "halfcheetah": "nres",
    "hopper": "nres",
    "walker2d": "es",
    # Their episodes are short, or end early while little is learned: an update of whole
    # episodes is cheap, and no particle waits for the end of an unroll.
    "inverted_pendulum": "es",
    "inverted_double_pendulum": "es",
    "reacher": "es",
    "pusher": "es",
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
