"""Evaluate what training found: `python -m pes_rl.evaluate RUN --episodes 100`."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from pes_rl.assembly.factories import (
    family_options,
    fits,
    make_environment,
    make_evaluation_rollout,
    make_rollout,
    own_network,
)
from pes_rl.config.checks import check_seed
from pes_rl.config.train_config import TrainConfig
from pes_rl.envs import Rollout, UnrolledProblem
from pes_rl.learner.evaluation import Evaluation, make_evaluator
from pes_rl.run_folder.policy_files import (
    load_parameters,
    load_policy,
)
from pes_rl.run_folder.reader import read_source
from pes_rl.runtime.command_line import finish, read_options, run_command
from pes_rl.runtime.waiting import waiting


@dataclass(frozen=True)
class EvaluateOptions:
    """Play whole fresh episodes with a trained policy and print its return.

    Of an unrolled problem, whose parameters training found, it is minus the meta-loss.
    """

    run: tyro.conf.Positional[str]
    """Folder of the run, or a policy file (npz) of one."""
    which: Literal["best", "last"] = "best"
    """The policy with the best evaluation of the run, or the last one; for a folder."""
    episodes: int = 100
    """Episodes to play."""
    env: str | None = None
    """Another environment with the same observations and actions, such as swimmer
    for a run on jax:swimmer; None takes that of the run. Not for unrolled problems."""
    env_kwargs: str | None = None
    """Arguments of the environment's constructor, a JSON object; None takes those of
    the run."""
    seed: int = 0
    """Seed of the episodes; training draws its own from its seed in another way."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = read_options(EvaluateOptions, arguments, "evaluate")
    return run_command(lambda: _print_evaluation(*evaluate(options)))


def _print_evaluation(config: TrainConfig, evaluation: Evaluation) -> None:
    returns, lengths = evaluation.returns, evaluation.lengths
    if evaluation.diverged.any():
        print(
            f"warning: {evaluation.diverged.sum()} of {len(returns)} episodes "
            "diverged; their returns say nothing",
            file=sys.stderr,
        )
    half_width = 1.96 * returns.std(ddof=1) / np.sqrt(len(returns))
    print(
        f"{config.env}: return {returns.mean():.5g} +- {half_width:.5g} (95% interval "
        f"of the mean), standard deviation {returns.std(ddof=1):.5g}, lowest "
        f"{returns.min():.5g}, highest {returns.max():.5g}, over {len(returns)} "
        f"episodes of {lengths.mean():.0f} steps"
    )


def evaluate(options: EvaluateOptions) -> tuple[TrainConfig, Evaluation]:
    """Play the episodes.

    Returns:
        (settings, evaluation), the latter in NumPy.

    Raises:
        ValueError: If the run cannot be read, or the environment does not fit it.
    """
    if options.episodes < 2:
        raise ValueError(f"episodes={options.episodes} must be at least 2; use 100")
    check_seed(options.seed)
    config = read_source(Path(options.run), options.env)
    if options.env is not None:
        # What training was shared by may not go with that environment.
        config = dataclasses.replace(
            config,
            env=options.env,
            devices=1,
            workers=0,
            ray_address=None,
            **family_options(config, options.env),
        )
    if options.env_kwargs is not None:
        config = dataclasses.replace(config, env_kwargs=options.env_kwargs)
    environment = make_environment(config, config.env)
    if isinstance(environment, UnrolledProblem):
        theta = load_parameters(options.run, options.which).theta
        if len(theta) != len(environment.parameter_names):
            raise ValueError(
                f"{config.env} has {len(environment.parameter_names)} parameters and "
                f"the run {len(theta)}; use its own environment"
            )
        rollout: Rollout = make_evaluation_rollout(config, environment)
        play = make_evaluator(rollout, options.episodes, environment.meta_loss)
    else:
        trained = load_policy(options.run, options.which, own_network(config))
        if not fits(trained.policy, environment, trained.spaces.action):
            raise ValueError(
                f"{config.env} has other observations or actions than the run's "
                "environment; use one with the same"
            )
        theta = trained.theta
        rollout = make_rollout(config, environment, trained)
        play = make_evaluator(rollout, options.episodes)
    with waiting(f"playing {options.episodes} episodes", output=sys.stderr):
        evaluation = play(jnp.asarray(theta), None, jax.random.key(options.seed))
        return config, jax.tree.map(np.asarray, evaluation)


if __name__ == "__main__":
    finish(main())
