"""The table of `signal` on the terminal, as CSV and as a figure."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from pes_rl.analysis.output import Row, new_figure, print_table, write_csv
from pes_rl.analysis.signal_statistics import PER_STEPS, Estimate, Interval
from pes_rl.analysis.signal_verdict import Verdict

FIELDS = (
    *("signal", "noise", "correlation", "ratio"),
    *("ratio_by_steps", "cosine", "useful"),
)
"""Fields of `Estimate` that are intervals."""

_AXES = {
    "ratio": "signal-to-noise ratio of an update",
    "useful": f"useful ratio of {PER_STEPS} steps",
    "cosine": "cosine with the gradient",
}


def write_report(
    folder: Path, known: Sequence[Estimate], verdict: Verdict, conditions: str
) -> None:
    """Print the table and the sentence; write signal.csv, signal.txt and signal.png.

    Args:
        folder: Made if missing.
        known: The estimators.
        verdict: Which to use.
        conditions: Environment, pairs and sigma, in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "signal.csv", [csv_row(e) for e in known])
    (folder / "signal.txt").write_text(f"{conditions}\n{verdict.sentence}\n")
    draw(folder / "signal.png", known, verdict.notes, conditions)
    print_table(
        [_printed(e, note) for e, note in zip(known, verdict.notes, strict=True)]
    )
    print(
        f"{conditions}; in brackets intervals of 95 %\n{verdict.sentence}\n"
        f"results: {folder}"
    )


def _printed(estimate: Estimate, note: str) -> Row:
    """Row of the terminal's table."""
    return {
        "estimator": str(estimate.setting),
        "steps": f"{estimate.steps:.0f}",
        "signal": f"{estimate.signal.value:.3g}",
        "noise": f"{estimate.noise.value:.3g}",
        "correlation": f"{estimate.correlation.value:.2g}",
        "ratio/update": in_words(estimate.ratio),
        f"ratio/{PER_STEPS} steps": in_words(estimate.ratio_by_steps),
        "cosine": in_words(estimate.cosine),
        "useful ratio": in_words(estimate.useful),
        "": note,
    }


def csv_row(estimate: Estimate) -> Row:
    """Values of an estimator, each interval as three columns."""
    setting = estimate.setting
    decay, discount = setting.trace_decay, setting.critic_discount
    row: Row = {
        "agent": setting.agent,
        "truncation_length": setting.truncation_length,
        "trace_decay": "" if decay is None else decay,
        "critic_discount": "" if discount is None else discount,
        "steps": estimate.steps,
    }
    for field in FIELDS:
        interval = getattr(estimate, field)
        row[field] = interval.value
        row[f"{field}_low"], row[f"{field}_high"] = interval.low, interval.high
    return row


def in_words(interval: Interval) -> str:
    """Such as "0.031 (0.021, 0.041)"; "?" where nothing is known."""
    if not np.isfinite(interval.value):
        return "?"
    value, low, high = (f"{x:.2g}" for x in astuple(interval))
    return f"{value} ({low}, {high})"


def draw(
    path: Path, known: Sequence[Estimate], notes: Sequence[str], title: str
) -> None:
    """Draw ratios and cosines with their intervals, a line for each estimator."""
    figure = new_figure(11, 1.6 + 0.22 * len(known))
    panels: Any = figure.subplots(1, len(_AXES), sharey=True)
    places = np.arange(len(known))
    agents = list(dict.fromkeys(e.setting.agent for e in known))
    for axes, (field, label) in zip(panels, _AXES.items(), strict=True):
        for place, estimate in zip(places, known, strict=True):
            interval = getattr(estimate, field)
            if not np.isfinite(astuple(interval)).all():
                continue
            axes.plot(
                [interval.low, interval.high],
                [place, place],
                color=f"C{agents.index(estimate.setting.agent)}",
            )
            axes.plot(interval.value, place, "ko", markersize=3)
        axes.axvline(0, color="0.7", linewidth=0.8)
        if field != "cosine":  # ratios of both signs, over orders of magnitude
            sizes = [abs(getattr(e, field).value) for e in known]
            middle = np.nanmedian([x for x in sizes if x > 0] or [1.0])
            axes.set_xscale("symlog", linthresh=middle)
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    names = [
        f"{e.setting}{f', {note}' if note else ''}"
        for e, note in zip(known, notes, strict=True)
    ]
    panels[0].set_yticks(places, names)
    panels[0].invert_yaxis()
    figure.suptitle(f"{title}; intervals of 95 %", fontsize=9)
    figure.savefig(path)
