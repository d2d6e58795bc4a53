"""A run's environment at the policy, or the parameters, that the run learned."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.agents import MaskedPolicy
from pes_rl.assembly.factories import (
    episode_steps,
    fits,
    make_environment,
    make_evaluation_rollout,
    make_policy,
    make_rollout,
    make_varying_horizon,
    own_network,
)
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs import Rollout, UnrolledProblem
from pes_rl.run_folder.policy_files import load_parameters, load_policy
from pes_rl.run_folder.reader import find_run, read_curve, read_source


@dataclass(frozen=True)
class TrainedSubject:
    """Where and at what theta a run's estimators can be measured.

    Attributes:
        config: The run's settings, or the task's defaults where there is no run.
        folder: Of the run; None where there is none.
        rollout: The training's, in this process; every episode has an end.
        theta: What was learned, with fixed moments of observations. # shape=(D,)
    """

    config: TrainConfig
    folder: Path | None
    rollout: Rollout
    theta: jax.Array

    def sigma(self) -> float | None:
        """The run's last sigma, from its log; else the setting."""
        if self.folder is not None and (self.folder / "progress.csv").exists():
            sigmas = read_curve(self.folder, ["train/sigma"])["train/sigma"]
            if len(sigmas):
                return float(sigmas[-1])
        return self.config.sigma


def load_subject(
    run: str, which: Literal["best", "last"], env: str | None
) -> TrainedSubject:
    """The subject that a run or a policy file is about.

    Args:
        run: A run folder, or a policy's npz file, in a run's `policy/` or elsewhere.
        which: The policy with the best evaluation, or the last; for a run folder.
        env: An environment for a policy file that is in no run; None takes the one
            that it names.

    Raises:
        ValueError: If it cannot be read, or the policy does not fit the environment.
    """
    path = Path(run)
    folder = find_run(path)
    if folder is not None and env is not None:
        raise ValueError(f"--env is for a policy file in no run; {run} has its own")
    config = read_source(path, agent="pes") if env is None else make_config(env, "pes")
    # The shared training is measured in this process alone.
    config = replace(config, devices=1, workers=0, ray_address=None)
    environment = make_environment(config, config.env, config.sample_actions)
    if isinstance(environment, UnrolledProblem):
        theta = _load_parameters(path, which, environment)
        rollout: Any = make_evaluation_rollout(config, environment)
        varying = make_varying_horizon(config, environment.horizon)
        rollout = replace(rollout, varying_horizon=varying)
        return TrainedSubject(config, folder, rollout, jnp.asarray(theta))
    trained = _load_policy(run, which, config, environment)
    varying = make_varying_horizon(config, episode_steps(config, environment))
    rollout = make_rollout(config, environment, trained, config.reward_shift, varying)
    return TrainedSubject(config, folder, rollout, jnp.asarray(trained.theta))


def _load_parameters(
    path: Path, which: Literal["best", "last"], problem: UnrolledProblem
) -> np.ndarray:
    theta = load_parameters(path, which).theta
    if len(theta) != len(problem.parameter_names):
        raise ValueError(
            f"the problem has {len(problem.parameter_names)} parameters and the run "
            f"{len(theta)}"
        )
    return theta


def _load_policy(
    run: str, which: Literal["best", "last"], config: TrainConfig, environment: Any
) -> Any:
    """The trained policy; with hidden entries of the observation as in training."""
    trained = load_policy(run, which, own_network(config))
    if not fits(trained.policy, environment, trained.spaces.action):
        raise ValueError(
            f"{config.env} has other observations or actions than the policy; name "
            "its own environment by --env"
        )
    if config.observation_mask is None:
        return trained
    # The file holds zeros for the weights that training left out of theta.
    masked = make_policy(config, environment)
    assert isinstance(masked, MaskedPolicy)
    _, places = masked.unmask(np.arange(1, masked.num_parameters + 1))
    theta = np.empty(masked.num_parameters, trained.theta.dtype)
    theta[places[places > 0] - 1] = trained.theta[places > 0]
    return replace(trained, policy=masked, theta=theta)
