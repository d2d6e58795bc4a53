"""One run of a peer, in the peers' own environment; `run.py` starts it."""

# pyright: reportMissingImports=false
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from protocol import (
    TASKS,
    Record,
    Run,
    TimeIsOver,
    raise_at_the_end,
    read_run,
    stop_raising,
)
from settings import ARS, PGPE, PPO, PPO_ENVIRONMENTS, SAC, SURVIVAL_BONUS

NO_BUDGET = 10**9
"""Environment steps; the minutes end the run. No setting here depends on it."""


def train_sb3(run: Run, record: Record) -> None:
    """ARS of sb3-contrib, or PPO or SAC of Stable-Baselines3."""
    from sb3_contrib import ARS as Ars
    from stable_baselines3 import PPO as Ppo, SAC as Sac
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    def make(number: int = 0) -> Any:
        count = PPO_ENVIRONMENTS[run.task] if run.arm == "ppo" else 1
        plain = make_vec_env(TASKS[run.task], count, seed=1000 * run.seed + number)
        if run.arm == "ppo":
            return VecNormalize(plain, gamma=PPO[run.task]["gamma"])
        if run.arm == "ars" and run.task != "swimmer":
            return VecNormalize(plain, norm_reward=False)
        return plain

    environment = make()
    common: dict[str, Any] = {"env": environment, "seed": run.seed, "device": "cpu"}
    others: dict[str, Any] = {}
    if run.arm == "ars":
        model: Any = Ars("LinearPolicy", **common, **ARS[run.task])
        if run.cores > 1:
            others["async_eval"] = make_workers(run.cores, make, model.policy)
    elif run.arm == "ppo":
        network = {"policy_kwargs": ppo_network(run.task)}
        model = Ppo("MlpPolicy", **common, **network, **PPO[run.task])
    else:
        model = Sac("MlpPolicy", **common, **SAC[run.task])

    def act(observations: np.ndarray) -> np.ndarray:
        if isinstance(environment, VecNormalize):
            observations = environment.normalize_obs(observations)
        return model.predict(observations, deterministic=True)[0]

    class Evaluations(BaseCallback):
        """Parameters change between two rollouts only: then it evaluates."""

        def _on_rollout_start(self) -> None:
            if record.is_due:
                record.evaluate(act, model.num_timesteps)

        def _on_step(self) -> bool:
            return True

    def train() -> None:
        model.learn(NO_BUDGET, callback=Evaluations(), **others)

    train_until_the_end(run, train)
    record.finish(act, model.num_timesteps, run.elapsed)


def ppo_network(task: str) -> dict[str, Any]:
    """Options of PPO's policy."""
    from torch import nn

    if task == "swimmer":
        return {}
    return {
        "log_std_init": -2,
        "ortho_init": False,
        "activation_fn": nn.ReLU,
        "net_arch": {"pi": [256, 256], "vf": [256, 256]},
    }


def make_workers(count: int, make: Callable[[int], Any], policy: Any) -> Any:
    """Processes that play ARS's candidates, as the zoo has them on several cores."""
    from sb3_contrib.common.vec_env import AsyncEval

    return AsyncEval([lambda n=n: make(n) for n in range(1, count + 1)], policy)


def train_pgpe(run: Run, record: Record) -> None:
    """PGPE with ClipUp of evotorch."""
    import torch
    from evotorch.algorithms import PGPE as Pgpe
    from evotorch.neuroevolution import GymNE

    torch.manual_seed(run.seed)
    problem = GymNE(
        env=TASKS[run.task],
        network="Linear(obs_length, act_length)",
        observation_normalization=True,
        decrease_rewards_by=SURVIVAL_BONUS[run.task],
        num_actors=run.cores if run.cores > 1 else None,
    )
    searcher = Pgpe(problem, **PGPE)

    def act(observations: np.ndarray) -> np.ndarray:
        policy = problem.to_policy(searcher.status["center"])
        with torch.no_grad():
            return policy(torch.as_tensor(observations, dtype=torch.float32)).numpy()

    def train() -> None:
        while True:
            if record.is_due:
                record.evaluate(act, problem.interaction_count)
            searcher.step()

    train_until_the_end(run, train)
    record.finish(act, problem.interaction_count, run.elapsed)


def train_until_the_end(run: Run, train: Callable[[], None]) -> None:
    """Train until the minutes are over."""
    raise_at_the_end(run)
    try:
        train()
    except TimeIsOver:
        stop_raising()


ARMS = {"ars": train_sb3, "ppo": train_sb3, "sac": train_sb3, "pgpe": train_pgpe}


def main() -> None:
    """Train once."""
    run = read_run()
    # Worker processes have a core each; PyTorch reads this when it is imported.
    has_workers = run.arm in ("ars", "pgpe")
    os.environ["OMP_NUM_THREADS"] = "1" if has_workers else str(run.cores)
    ARMS[run.arm](run, Record(run))


if __name__ == "__main__":
    main()
