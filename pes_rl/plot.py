"""Draw learning curves: `python -m pes_rl.plot RUN...`."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from pes_rl.config.train_config import TrainConfig
from pes_rl.graphics.figures import Panel, against_mean_clock, draw_learning_curves
from pes_rl.run_folder.reader import read_config, read_curve
from pes_rl.runtime.command_line import finish, read_options, run_command
from pes_rl.studies.figures import redraw_study
from pes_rl.studies.study import settings_that_matter

_STEPS = "time/total_timesteps"
_CLOCKS = {"environment steps": _STEPS, "seconds": "time/time_elapsed"}
_RETURN = "eval/mean_reward"


@dataclass(frozen=True)
class PlotOptions:
    """Draw evaluation returns of runs against environment steps and wall time."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run folders, or folders that hold run folders at any depth. Or folders of
    studies (study.toml and curves.csv): their own figures are drawn anew."""
    out: str = "curves.png"
    """The PNG file of runs; a relative name is one in the working directory."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = read_options(PlotOptions, arguments, "plot")
    return run_command(lambda: _plot(options))


def _plot(options: PlotOptions) -> None:
    studies = [Path(p) for p in options.runs if (Path(p) / "curves.csv").exists()]
    for study in studies:
        redraw_study(study)
        print(f"{study}: figures drawn anew")
    runs = [place for place in options.runs if Path(place) not in studies]
    if not runs:
        return
    folders = find_runs(runs)
    panels, drawn = make_panels(folders)
    out = Path(options.out)
    if not out.suffix:  # Matplotlib would add it, and the file have another name.
        out = out.with_suffix(".png")
    draw_learning_curves(out, panels, columns=len(_CLOCKS))
    left_out = len(folders) - drawn
    note = f", {left_out} without an evaluation left out" if left_out else ""
    written = out.resolve()
    print(f"written to {written}: {drawn} run{'s' if drawn > 1 else ''}{note}")


def find_runs(places: Iterable[str]) -> list[Path]:
    """The run folders in `places`, each once, in order.

    Raises:
        ValueError: If a place holds none.
    """
    found: dict[Path, Path] = {}
    for place in places:
        logs = sorted(Path(place).rglob("progress.csv"))
        if not logs:
            raise ValueError(
                f"{place} holds no run (a folder with progress.csv); name a folder "
                "that --logdir made, or one above it"
            )
        found.update({log.parent.resolve(): log.parent for log in logs})
    return list(found.values())


def make_panels(folders: list[Path]) -> tuple[list[Panel], int]:
    """A row of panels an environment, one panel a clock; and the number of runs drawn.

    Runs that differ in their seed alone are one arm.

    Raises:
        ValueError: If a folder is no run, or none has an evaluation yet.
    """
    columns = (*_CLOCKS.values(), _RETURN)
    curves = {folder: read_curve(folder, columns) for folder in folders}
    folders = [folder for folder in folders if len(curves[folder][_RETURN])]
    if not folders:
        raise ValueError("none of the runs has an evaluation yet; wait for the first")
    configs = [read_config(folder) for folder in folders]
    rows: dict[str, list[tuple[str, TrainConfig, Path]]] = defaultdict(list)
    for name, config, folder in zip(name_arms(configs), configs, folders, strict=True):
        rows[config.env].append((name, config, folder))
    panels = []
    for env, runs in rows.items():
        for label, column in _CLOCKS.items():
            arms: dict[str, list[tuple[Any, Any, Any]]] = defaultdict(list)
            for name, _, folder in runs:
                curve = curves[folder]
                arms[name].append((curve[_STEPS], curve[column], curve[_RETURN]))
            drawn = {name: against_mean_clock(arm) for name, arm in arms.items()}
            panels.append(Panel(env, drawn, runs[0][1].threshold, label))
    return panels, len(folders)


def name_arms(configs: list[TrainConfig]) -> list[str]:
    """A name for each run: environment, agent, and settings that its runs differ in.

    Seeds are not named.
    """
    settings = [settings_that_matter(config) for config in configs]
    differing: dict[tuple[str, str], list[str]] = {}
    for group in {(config.env, config.agent) for config in configs}:
        of_group = [s for s in settings if (s["env"], s["agent"]) == group]
        differing[group] = [
            field.name
            for field in dataclasses.fields(TrainConfig)
            if field.name in of_group[0]
            and field.name != "seed"
            and any(s[field.name] != of_group[0][field.name] for s in of_group)
        ]
    return [
        " ".join(
            [
                f"{s['env']}, {s['agent']}",
                *(f"{n}={s[n]}" for n in differing[s["env"], s["agent"]]),
            ]
        )
        for s in settings
    ]


if __name__ == "__main__":
    finish(main())
