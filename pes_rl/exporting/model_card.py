"""The model card of a trained policy: what it is, how it was made, how to use it."""

# pyright: reportMissingImports=false

import shlex
from collections.abc import Mapping
from typing import Any

from pes_rl.config.train_config import TrainConfig
from pes_rl.envs.names import is_unrolled

_TEXT = """
# {agent} on {env}

Trained by [Persistent Evolution Strategies](https://arxiv.org/abs/2112.13835)
with {made_by}.
{film}
| | |
|---|---|
| environment | `{env}` |
| agent | `{agent}`, seed {seed} |
| final return | {final} |
| best evaluation | {best} |
| environment steps | {steps:,} |
| seconds | {seconds:.0f} |

## Use

```
python -m pes_rl.hub pull {repository} FOLDER
python -m pes_rl.evaluate FOLDER
```

or, with NumPy alone:

```python
{use}
```

## How it was trained

```
{command}
```

`config.json` has every setting, `progress.csv` the log. Versions: {versions}.
"""

_USE_POLICY = """import pes_rl

policy = pes_rl.load_policy("FOLDER")
action = policy(observation)"""
_USE_PARAMETERS = """import numpy

parameters = numpy.load("FOLDER/policy/best.npz")
theta, names = parameters["theta"], parameters["names"]"""


def make_card(
    config: TrainConfig,
    summary: Mapping[str, Any],
    made: Mapping[str, Any],
    repository: str,
    film: str | None,
) -> str:
    """The card as Markdown, with the metadata that the Hugging Face hub reads.

    Args:
        config: Settings of the run.
        summary: Content of its `summary.json`.
        made: Content of its `config.json`: versions and command.
        repository: Where the policy can be pulled from.
        film: Name of a film in the repository, if there is one.

    Raises:
        ValueError: If the package huggingface_hub is missing.
    """
    best, final = summary["best_return"], summary["final_return"]
    text = _TEXT.format(
        agent=config.agent,
        env=config.env,
        seed=config.seed,
        made_by=", ".join(made.get("made_by", [])) or "pes_rl",
        film=f"\n![the policy]({film})\n" if film else "",
        final="none" if final is None else _final(summary),
        best="none" if best is None else f"{best:.5g}",
        steps=summary["total_timesteps"],
        seconds=summary["wall_seconds"],
        repository=repository,
        use=_USE_PARAMETERS if is_unrolled(config.env) else _USE_POLICY,
        command=shlex.join(made["command"]),
        versions=", ".join(f"{k} {v}" for k, v in made["versions"].items()),
    )
    return f"---\n{_metadata(config, summary)}\n---\n{text}"


def _final(summary: Mapping[str, Any]) -> str:
    return (
        f"{summary['final_return']:.5g} +- {summary['final_return_std']:.3g} (standard "
        f"deviation over {summary['final_episodes']} episodes)"
    )


def _metadata(config: TrainConfig, summary: Mapping[str, Any]) -> str:
    """The card's YAML header."""
    from huggingface_hub import EvalResult, ModelCardData

    results = None
    if summary["final_return"] is not None:
        results = [
            EvalResult(
                task_type="reinforcement-learning",
                dataset_type=config.env,
                dataset_name=config.env,
                metric_type="mean_reward",
                metric_value=round(summary["final_return"], 3),
            )
        ]
    return ModelCardData(
        library_name="pes_rl",
        tags=["reinforcement-learning", "evolution-strategies", config.agent],
        model_name=f"{config.agent} on {config.env}" if results else None,
        eval_results=results,
    ).to_yaml()
