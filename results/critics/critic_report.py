"""Rows of a case, and the tables of the README made from the rows of all cases."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from critic_streams import NO_CRITIC, CriticSetting
from critic_values import Critics

from pes_rl.analysis.output import Row
from pes_rl.analysis.signal_report import csv_row
from pes_rl.analysis.signal_statistics import Estimate, Replicates
from pes_rl.analysis.signal_stream import Setting

MIN_COSINE, MIN_TIMES = 0.9, 2.0
"""What the issue asks of a setting that pays."""
MIN_TASKS = 2
MARKS = "<!-- tables: written by run.py -->", "<!-- end of tables -->"


def critic_of(setting: Setting) -> str:
    """Name of the setting's critic."""
    return setting.critic if isinstance(setting, CriticSetting) else NO_CRITIC


def is_rival(estimate: Estimate) -> bool:
    """Whether it is PES (lambda = 1), NRES, or truncated ES, with a cosine of 0.9."""
    setting = estimate.setting
    if critic_of(setting) != NO_CRITIC or setting.trace_decay not in (None, 1):
        return False
    return setting.is_unbiased or estimate.cosine.value >= MIN_COSINE


def case_rows(
    made: Replicates,
    known: Sequence[Estimate],
    critics: Mapping[int, Critics],
    steps: int,
) -> list[Row]:
    """A row an estimator: `csv_row`, and beside it.

    - times: ratio a step over that of the best rival; rivals are PES, NRES and those
      truncated ES whose cosine is 0.9 or more;
    - noise_share: long noise over that of the same K and lambda without critic.

    Args:
        made: The statistics.
        known: `estimates` of them.
        critics: By K.
        steps: Of each rollout.
    """
    ratios = made.squared / (made.long_noise * made.steps)
    rivals = [j for j, e in enumerate(known) if is_rival(e)]
    best = max(rivals, key=lambda j: np.nan_to_num(ratios[0, j], nan=-np.inf))
    plain = [_without_critic(made.settings, s) for s in made.settings]
    times = _quotient(made, ratios, ratios[:, [best]])
    shares = _quotient(made, made.long_noise, made.long_noise[:, plain])
    rows = []
    for j, estimate in enumerate(known):
        setting = estimate.setting
        name, fitted = critic_of(setting), critics.get(setting.truncation_length)
        explained = fitted.explained[fitted.names.index(name)] if fitted else 0.0
        rows.append(
            {
                "rollout_steps": steps,
                "critic": name,
                **csv_row(estimate),
                **_columns("times", times, j),
                **_columns("noise_share", shares, j),
                "explained": explained,
                "is_best_rival": int(j == best),
            }
        )
    return rows


def _without_critic(settings: Sequence[Setting], setting: Setting) -> int:
    """Place of the estimator of the same K and lambda without critic."""
    key = setting.agent, setting.truncation_length, setting.trace_decay
    return next(
        j
        for j, s in enumerate(settings)
        if (s.agent, s.truncation_length, s.trace_decay) == key
        and critic_of(s) == NO_CRITIC
    )


def _quotient(made: Replicates, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Values and intervals of a quotient, on its logarithm. # shape=(3, J)."""
    with np.errstate(all="ignore"):
        logs = np.log(above / below)
        half = made.half_width(logs)
        half = np.where(np.isfinite(half), half, np.inf)
        return np.exp(np.stack([logs[0], logs[0] - half, logs[0] + half]))


def _columns(name: str, values: np.ndarray, j: int) -> Row:
    names = name, f"{name}_low", f"{name}_high"
    return {n: float(v) for n, v in zip(names, values[:, j], strict=True)}


def write_tables(folder: Path) -> None:
    """Write the tables into the README, from cases/*.csv; print the decision."""
    cases = {p.stem: _read(p) for p in sorted((folder / "cases").glob("*.csv"))}
    if not cases:
        return
    header = [
        "| policy | rollouts | best rival | its ratio / 1000 steps "
        "| trace decay alone, times | with a critic, times | its cosine "
        "| noise left at lambda = 1, K = 100 ... 10 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = [_line(name, rows) for name, rows in cases.items()]
    text = "\n".join([*header, *lines, "", decision(cases)])
    print(text)
    readme = folder / "README.md"
    if readme.exists():
        before, rest = readme.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def _read(path: Path) -> list[Row]:
    with path.open() as file:
        return [{k: _parsed(v) for k, v in r.items()} for r in csv.DictReader(file)]


def _parsed(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _line(name: str, rows: Sequence[Row]) -> str:
    rival = next(r for r in rows if r["is_best_rival"])
    plain = [
        r for r in rows if r["critic"] == NO_CRITIC and r["trace_decay"] not in ("", 1)
    ]
    best = _best(with_critic(rows))
    cells = [
        name,
        f"{rival['rollout_steps']:,.0f}",
        _name(rival),
        f"{rival['ratio_by_steps']:.2g}",
        _times(_best(plain)),
        _times(best),
        f"{best['cosine']:.2f} ({best['cosine_low']:.2f}, {best['cosine_high']:.2f})"
        if best
        else "-",
        _noise_left(rows),
    ]
    return f"| {' | '.join(cells)} |"


def with_critic(rows: Sequence[Row]) -> list[Row]:
    """Rows of estimators with a critic."""
    return [r for r in rows if r["critic"] != NO_CRITIC]


def _best(rows: Sequence[Row]) -> Row | None:
    """The one with the most times, of those with a cosine of 0.9 or more."""
    allowed = [r for r in rows if r["cosine"] >= MIN_COSINE and r["times"] > 0]
    return max(allowed, key=lambda r: r["times"], default=None)


def _name(row: Row) -> str:
    decay = row["trace_decay"]
    parts = [f"{row['agent']} K {row['truncation_length']:.0f}"]
    parts += [] if decay == "" or row["agent"] != "pes" else [f"lambda {decay:g}"]
    parts += [] if row["critic"] == NO_CRITIC else [str(row["critic"])]
    return " ".join(parts)


def _times(row: Row | None) -> str:
    if row is None:
        return "-"
    return (
        f"{row['times']:.2g} ({row['times_low']:.2g}, {row['times_high']:.2g}): "
        f"{_name(row)}"
    )


def _noise_left(rows: Sequence[Row]) -> str:
    """Least share of PES's noise that a critic leaves at lambda = 1, by K."""
    shares: dict[float, float] = {}
    for row in with_critic(rows):
        if row["trace_decay"] == 1:
            length = row["truncation_length"]
            shares[length] = min(shares.get(length, np.inf), row["noise_share"])
    return ", ".join(f"{s:.2f}" for _, s in sorted(shares.items(), reverse=True)) or "-"


def decision(cases: Mapping[str, Sequence[Row]]) -> str:
    """On how many tasks some setting with a critic pays, in sentences."""
    tasks = {name.partition("-")[0] for name in cases}
    pays = {level: _tasks_where(cases, *level) for level in LEVELS}
    point, surely, perhaps = (pays[level] for level in LEVELS)
    verdict = "pay" if len(point) >= MIN_TASKS else "do not pay"
    return (
        f"Some critic has {MIN_TIMES:g} times the ratio a step of the best rival at a "
        f"cosine of {MIN_COSINE:g} or more on {len(point)} of {len(tasks)} tasks"
        f"{': ' if point else ''}{', '.join(sorted(point))}. By the lower ends of both "
        f"intervals on {len(surely)}, by the upper ends on {len(perhaps)}. By the "
        f"issue's rule, {MIN_TASKS} tasks, critics {verdict}."
    )


LEVELS = ("times", "cosine"), ("times_low", "cosine_low"), ("times_high", "cosine_high")
"""Columns by which a setting is judged: values, lower and upper ends."""


def _tasks_where(
    cases: Mapping[str, Sequence[Row]], times: str, cosine: str
) -> set[str]:
    """Tasks with a setting that has enough of both columns."""
    return {
        name.partition("-")[0]
        for name, rows in cases.items()
        for row in with_critic(rows)
        if row[times] >= MIN_TIMES and row[cosine] >= MIN_COSINE
    }
