"""Whether a study's recorded results are still what the code gives.

A part of each arm is trained again, and its evaluations are compared with those in
`curves.csv`. The verdict on an arm is one of three:

- same to the bit: all evaluations are at the recorded steps and have the recorded
  returns, in all digits that the file has;
- within the interval: they differ, and their mean is in the interval below;
- stale: it is not.

The interval is the 99% prediction interval of normal theory for the mean of n new runs
from the m recorded seeds, with mean x and standard deviation s,

    x +- t(0.995, m - 1) s sqrt(1/n + 1/m),

but never less than 1% of |x| on each side, which is all there is for m = 1. Recorded
curves are interpolated linearly at the steps of the new run. One that is trained to the
end is compared in its final return too. By chance, an arm that has not changed is
called stale once in a hundred times for each of the two; few seeds make a wide
interval, so that "within the interval" is weak evidence there.
"""

import csv
import json
import math
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from pes_rl.studies.outcomes import Outcome, read_curves, read_outcome
from pes_rl.studies.report import short
from pes_rl.studies.runner import run_study
from pes_rl.studies.study import Study, StudyRun

SAME, WITHIN, STALE = "same to the bit", "within the interval", "stale"
Key = tuple[str, str, int]
"""Environment, arm and seed of a run."""


@dataclass(frozen=True)
class Verdict:
    """Whether the results of an arm are still true.

    Attributes:
        env: The arm's environment.
        arm: Its name.
        seeds: Those that were trained again.
        evaluations: Evaluations of them that were compared.
        verdict: `same to the bit`, `within the interval` or `stale`.
        reason: The numbers behind it; empty where all are the same.
    """

    env: str
    arm: str
    seeds: tuple[int, ...]
    evaluations: int
    verdict: str
    reason: str


@dataclass(frozen=True)
class Recorded:
    """What a study's folder holds.

    Attributes:
        curves: The learning curves.
        finals: The final returns.
    """

    curves: dict[Key, Outcome]
    finals: dict[Key, float]

    def arm(self, env: str, arm: str) -> list[Key]:
        """The recorded runs of an arm."""
        return [key for key in self.curves if key[:2] == (env, arm)]


def verify_study(study: Study, folder: Path, jobs: int) -> list[Verdict]:
    """Train the study's `verify` part again and compare it with the folder's results.

    Runs are made in a temporary folder; nothing is written into `folder`.

    Raises:
        ValueError: If results are missing or are not those of this study.
    """
    recorded = read_recorded(study, folder)
    part = _part(study)
    for run in part.runs:
        if _key(run) not in recorded.curves or _key(run) not in recorded.finals:
            raise ValueError(
                f"{folder} has no results of {run.arm!r} on {run.config.env} with seed "
                f"{run.config.seed}; run the study without --verify first"
            )
    others = multiprocessing.active_children()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        try:
            run_study(part, Path(temporary), jobs, study.verify.evaluations)
            again = {
                _key(run): read_outcome(run.arm, Path(temporary) / run.folder_name)
                for run in part.runs
            }
        finally:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.join()  # It writes there.
    arms = dict.fromkeys(key[:2] for key in again)
    whole = study.verify.evaluations is None
    return [judge(env, arm, again, recorded, whole) for env, arm in arms]


def read_recorded(study: Study, folder: Path) -> Recorded:
    """The results in a study's folder.

    Raises:
        ValueError: If `curves.csv` or `runs.csv` is missing or is not of this study.
    """
    for name in ("curves.csv", "runs.csv"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder / name} is missing, with which --verify compares; run the "
                "study without --verify first"
            )
    curves = read_curves(folder / "curves.csv", study)
    path = folder / "runs.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            finals = {
                (row.get("env") or study.envs[0], row["arm"], int(row["seed"])): float(
                    row["final_return"]
                )
                for row in csv.DictReader(file)
            }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no runs of this study: {error!r}") from error
    keys = [(c.summary["env"], c.arm, c.summary["seed"]) for c in curves]
    return Recorded(dict(zip(keys, curves, strict=True)), finals)


def _part(study: Study) -> Study:
    """The runs to train again; shortened ones need no final evaluation to speak of."""
    chosen: dict[tuple[str, str], list[StudyRun]] = {}
    for run in study.runs:
        runs = chosen.setdefault((run.config.env, run.arm), [])
        if len(runs) < study.verify.seeds:
            runs.append(run)
    runs = [run for of_arm in chosen.values() for run in of_arm]
    if study.verify.evaluations is not None:
        runs = [
            replace(run, config=replace(run.config, final_eval_episodes=1))
            for run in runs
        ]
    return replace(study, title=f"{study.title}, verified", runs=tuple(runs))


def _key(run: StudyRun) -> Key:
    return run.config.env, run.arm, run.config.seed


def judge(
    env: str, arm: str, again: dict[Key, Outcome], recorded: Recorded, whole: bool
) -> Verdict:
    """The verdict on an arm.

    Args:
        env: Its environment.
        arm: Its name.
        again: The runs that were trained again.
        recorded: The folder's results.
        whole: They were trained to their ends.
    """
    keys = [key for key in again if key[:2] == (env, arm)]
    evaluations = sum(len(again[key].steps) for key in keys)
    seeds = tuple(seed for _, _, seed in keys)
    differences = [
        text for key in keys if (text := _difference(key, again[key], recorded, whole))
    ]
    if not differences:
        return Verdict(env, arm, seeds, evaluations, SAME, "")
    of_arm = recorded.arm(env, arm)
    steps = again[keys[0]].steps
    curves = [recorded.curves[key] for key in of_arm]
    means = [float(np.interp(steps, c.steps, c.returns).mean()) for c in curves]
    new = float(np.mean([again[key].returns.mean() for key in keys]))
    checks = [_compare("mean return", new, means, len(keys))]
    if whole:
        finals = [recorded.finals[key] for key in of_arm if key in recorded.finals]
        new = float(np.mean([again[key].summary["final_return"] for key in keys]))
        checks.append(_compare("final return", new, finals, len(keys)))
    verdict = WITHIN if all(inside for inside, _ in checks) else STALE
    reason = "; ".join([*(text for _, text in checks), differences[0]])
    return Verdict(env, arm, seeds, evaluations, verdict, reason)


def _difference(key: Key, again: Outcome, recorded: Recorded, whole: bool) -> str:
    """Where a run first differs from the recorded one, in words; empty if nowhere."""
    old = recorded.curves[key]
    decimals = max(_decimals(value) for value in old.returns)
    count = len(again.steps)
    seed = f"seed {key[2]}"
    if whole and len(old.steps) != count:
        return f"{seed} has {count} evaluations, recorded are {len(old.steps)}"
    pairs = zip(again.steps, again.returns, old.steps, old.returns, strict=False)
    for step, value, old_step, old_value in pairs:
        if step != old_step:
            return f"{seed} is evaluated at step {step:,.0f}, before at {old_step:,.0f}"
        if not _agree(value, old_value, decimals):
            return f"{seed} differs from step {step:,.0f} on"
    if count > len(old.steps):
        return f"{seed} has {count} evaluations, recorded are {len(old.steps)}"
    final = again.summary["final_return"]
    decimals = max(_decimals(value) for value in recorded.finals.values())
    if whole and not _agree(final, recorded.finals[key], decimals):
        return f"{seed} differs in its final return alone"
    return ""


def _decimals(value: float) -> int:
    exponent = Decimal(repr(float(value))).as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _agree(value: float, recorded: float, decimals: int) -> bool:
    """Whether a value is the recorded one, rounded as the file is.

    Files have seven significant digits; older ones have some decimals instead.
    """
    return recorded in (float(f"{value:.7g}"), round(float(value), decimals))


def _compare(
    name: str, new: float, recorded: Sequence[float], count: int
) -> tuple[bool, str]:
    low, high = prediction_interval(recorded, count)
    inside = low <= new <= high
    where = "in" if inside else "outside"
    seeds = "1 seed" if len(recorded) == 1 else f"{len(recorded)} seeds"
    return inside, (
        f"{name} {short(new)} {where} {short(low)} to {short(high)} of {seeds}"
    )


def prediction_interval(values: Sequence[float], count: int) -> tuple[float, float]:
    """The interval of the module's text for the mean of `count` new runs.

    Example:
        >>> low, high = prediction_interval([1.0, 2.0, 3.0], 1)
        >>> round(low, 1), round(high, 1)
        (-9.5, 13.5)
    """
    mean, known = float(np.mean(values)), len(values)
    half = 0.01 * abs(mean)
    if known > 1:
        quantile = float(student_t.ppf(0.995, known - 1))
        spread = float(np.std(values, ddof=1))
        half = max(half, quantile * spread * math.sqrt(1 / count + 1 / known))
    return mean - half, mean + half


def describe(study: Study, verdicts: Sequence[Verdict]) -> str:
    """The verdicts as lines of text."""
    several = len(study.envs) > 1
    lines = []
    for one in verdicts:
        name = f"{one.arm} on {one.env}" if several else one.arm
        seeds = ", ".join(map(str, one.seeds))
        lines.append(f"{name} (seed {seeds}, {one.evaluations} evaluations): ")
        lines[-1] += f"{one.verdict}; {one.reason}" if one.reason else one.verdict
    return "\n".join(lines)


def write_report(
    path: Path, study: Study, verdicts: Sequence[Verdict], maker: Mapping[str, Any]
) -> None:
    """Write the verdicts, and the code and machine that they were found with.

    Args:
        path: The JSON file.
        study: The study.
        verdicts: Those of `verify_study`.
        maker: See `describe_maker`; from before the runs: code can change meanwhile.
    """
    content = {
        "verified_at": maker["made_by"][0],
        **{key: maker[key] for key in ("versions", "date", "platform")},
        "part": asdict(study.verify),
        "arms": [asdict(one) for one in verdicts],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
