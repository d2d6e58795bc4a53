"""The results of a sweep: report, CSV file, figure, best settings as a study."""

import json
from pathlib import Path
from typing import Any

from pes_rl.graphics.figures import draw_bars
from pes_rl.run_folder.provenance import version_and_commit
from pes_rl.runtime.csv_table import write_csv
from pes_rl.studies.report import short
from pes_rl.studies.sweep_space import Space

_SHOWN = 10


def write_report(space: Space, study: Any, out: Path) -> None:
    """Write `report.md`, `trials.csv`, `importances.png` and `best.toml`.

    The figure and the importances need two complete trials, `best.toml` one.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    complete.sort(key=lambda trial: -trial.value)
    _write_trials(out / "trials.csv", space, trials)
    importances = find_importances(study, complete)
    if importances:
        title = f"{space.title}: what mattered"
        draw_bars(
            out / "importances.png",
            importances,
            title,
            "share of the variance (fANOVA)",
        )
    report = make_report(space, trials, complete, importances)
    (out / "report.md").write_text(report, "utf-8")
    if complete:
        (out / "best.toml").write_text(as_study(space, complete[0].params))


def find_importances(study: Any, complete: list[Any]) -> dict[str, float]:
    """Share of the variance of the return that each setting explains, by fANOVA.

    References: Hutter, Hoos, Leyton-Brown 2014, "An Efficient Approach for Assessing
    Hyperparameter Importance"; Optuna's implementation.
    """
    import optuna

    # Nothing varies, so nothing explains it.
    if len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def make_report(
    space: Space, trials: list[Any], complete: list[Any], importances: dict[str, float]
) -> str:
    """The report, in Markdown."""
    names = list(space.search)
    counts = {
        word: sum(trial.state.name == state for trial in trials)
        for word, state in (("complete", "COMPLETE"), ("pruned", "PRUNED"))
    }
    counts["refused"] = sum("refused" in trial.user_attrs for trial in trials)
    numbers = ", ".join(f"{count} {word}" for word, count in counts.items())
    seeds = ", ".join(map(str, space.seeds))
    lines = [
        f"# {space.title}",
        "",
        f"Trials: {numbers}. A trial's value is the mean final return of "
        f"`{space.agent}` on `{space.env}` over seeds {seeds}. Made by "
        f"{version_and_commit()}.",
        "",
        f"| trial | final return | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for trial in complete[:_SHOWN]:
        cells = [_shown(trial.params[name]) for name in names]
        lines.append(f"| {trial.number} | {short(trial.value)} | {' | '.join(cells)} |")
    lines += ["", "## What mattered", ""]
    if importances:
        lines += ["| setting | share of the variance |", "|---|---|"]
        lines += [f"| {name} | {share:.2f} |" for name, share in importances.items()]
        lines += [
            "",
            f"By fANOVA over the {len(complete)} complete trials. The search tries "
            "good settings more often, and pruned trials have no final return, so "
            "these are shares among settings that went well.",
        ]
    else:
        lines.append("It takes two complete trials of different return to tell.")
    lines += [
        "",
        "The best value is that of the luckiest trial; `best.toml` measures its "
        "settings beside the defaults on seeds that the sweep did not use: "
        "`python -m pes_rl.compare best.toml`.",
    ]
    return "\n".join([*lines, ""])


def as_study(space: Space, parameters: dict[str, Any]) -> str:
    """The best settings and the defaults as a study on five fresh seeds, in TOML."""
    first = max(space.seeds) + 1
    common = {
        "title": f"{space.title}: best of the sweep",
        "env": space.env,
        **{name: space.fixed[name] for name in space.fixed if _is_scale(name)},
    }
    seeds = list(range(first, first + 5))
    rest = {k: v for k, v in space.fixed.items() if k not in common}
    best = {
        "name": "best of the sweep",
        "agent": space.agent,
        "seeds": seeds,
        **rest,
        **space.read(parameters),
    }
    defaults = {"name": "defaults", "agent": space.agent, "seeds": seeds}
    blocks = ["\n".join(f"{k} = {_toml(v)}" for k, v in common.items())]
    for arm in (best, defaults):
        lines = (f"{name} = {_toml(value)}" for name, value in arm.items())
        blocks.append("\n".join(["[[arm]]", *lines]))
    return "\n\n".join(blocks) + "\n"


def _is_scale(name: str) -> bool:
    """Whether a setting belongs to every arm: budget, evaluation, environment."""
    return name in (
        "total_timesteps",
        "horizon",
        "threshold",
        "env_kwargs",
        "backend",
    ) or name.startswith(("eval_", "final_eval_"))


def _toml(value: Any) -> str:
    """A value in TOML, whose texts, numbers, booleans and lists are JSON's."""
    return json.dumps(value)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write_trials(path: Path, space: Space, trials: list[Any]) -> None:
    columns = ("trial", "state", "final_return", *space.search)
    write_csv(path, columns, map(_trial_row, trials))


def _trial_row(trial: Any) -> dict[str, Any]:
    refused = "refused" in trial.user_attrs
    return {
        "trial": trial.number,
        "state": "refused" if refused else trial.state.name.lower(),
        "final_return": None if trial.state.name == "PRUNED" else trial.value,
        **trial.params,
    }
