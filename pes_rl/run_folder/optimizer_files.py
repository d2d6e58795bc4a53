"""Learned optimisers that runs have trained, as transformations of optax."""

import json
from pathlib import Path
from typing import Literal

import optax

from pes_rl.envs.unrolled.update_rule import UpdateRule
from pes_rl.run_folder.policy_files import (
    load_parameters,
)
from pes_rl.run_folder.reader import read_config

_ENV = "unrolled:learned-optimizer"


def load_optimizer(
    run: str | Path, which: Literal["best", "last"] = "best"
) -> optax.GradientTransformation:
    """The optimiser that a run on `unrolled:learned-optimizer` has trained.

    It goes into any training loop in JAX in place of `optax.adam(rate)`. Its `update`
    needs the weights as well, and its updates include the sign and the size of the
    step:

        optimizer = pes_rl.load_optimizer("runs/my-optimizer")
        state = optimizer.init(params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)

    Args:
        run: A run folder.
        which: The parameters with the best evaluation, or the last.

    Raises:
        ValueError: If the run trained something else, or a file is damaged.
    """
    config = read_config(Path(run))
    if config.env != _ENV:
        raise ValueError(
            f"{run} is a run on {config.env}; a learned optimiser comes from {_ENV}"
        )
    options = json.loads(config.env_kwargs)
    sizes = options.get("optimizer_hidden_sizes")
    rule = UpdateRule() if sizes is None else UpdateRule(tuple(sizes))
    trained = load_parameters(run, which)
    if trained.names != rule.parameter_names:
        raise ValueError(
            f"{run} holds {len(trained.names)} parameters, and the update rule of its "
            f"settings has {len(rule.parameter_names)}; is its config.json another's?"
        )
    return rule.transformation(trained.theta)
