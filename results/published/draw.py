"""Figures from the tables of `run.py`: python results/published/draw.py."""

import csv
import math
from pathlib import Path

import numpy as np
from matplotlib.ticker import NullLocator

from pes_rl.analysis.output import new_figure

HERE = Path(__file__).parent
# By eye, of the published figures: where the paths end in log10 of decay and rate.
PUBLISHED_ENDS = {"pes": (0.5, -1.25), "truncated-es": (2.0, -1.4)}
COLORS = {"pes": "C1", "truncated-es": "C3"}
BUDGET = 5_000_000  # what the column `progress` is a share of


def read(name: str) -> list[dict[str, str]]:
    """Rows of a table of this folder."""
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def draw_schedules() -> None:
    """Maps of both objectives, with the paths on them."""
    figure = new_figure(11, 5)
    for place, objective in enumerate(("training-loss", "validation-accuracy"), 1):
        grid = read(f"schedule_{objective}_surface.csv")
        rates, decays, losses = (
            np.array([float(row[k]) for row in grid]).reshape(40, 40)
            for k in ("log_rate", "log_decay", "loss")
        )
        if objective == "training-loss":
            values, title = np.log(losses), "log of the summed training loss"
        else:
            values = -losses / float(grid[0]["steps"])
            title = "mean validation accuracy"
        axes = figure.add_subplot(1, 2, place)
        ten = math.log(10)
        limits = np.quantile(values, [0.05, 1] if place == 2 else [0, 0.9])
        mesh = axes.pcolormesh(
            decays / ten,
            rates / ten,
            values,
            vmin=limits[0],
            vmax=limits[1],
            rasterized=True,
        )
        figure.colorbar(mesh, ax=axes)
        paths = read(f"schedule_{objective}_paths.csv")
        for agent, color in COLORS.items():
            path = np.array(
                [
                    (float(row["log_decay"]), float(row["log_rate"]))
                    for row in paths
                    if row["agent"] == agent
                ]
            )
            updates = max(int(row["update"]) for row in paths if row["agent"] == agent)
            label = f"{agent}, {updates} updates"
            axes.plot(*path.T / ten, color=color, label=label)
            axes.plot(*path[-1] / ten, "o", color=color, markeredgecolor="white")
            axes.plot(
                *PUBLISHED_ENDS[agent],
                "*",
                color=color,
                markersize=13,
                markeredgecolor="white",
            )
        axes.set(
            title=f"{title}, first {grid[0]['steps']} steps of 5000",
            xlabel="log10 decay",
            ylabel="log10 first rate",
        )
        axes.legend(loc="lower left")
    figure.savefig(HERE / "schedule.png")


def draw_hyperparameters() -> None:
    """Running best of each seed, its mean and its range."""
    rows = read("hyperparameters.csv")
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot()
    for agent, color in COLORS.items():
        own = [row for row in rows if row["agent"] == agent]
        seeds = sorted({row["seed"] for row in own})
        steps = [
            BUDGET * float(row["progress"]) for row in own if row["seed"] == seeds[0]
        ]
        losses = np.array(
            [
                [float(row["loss"]) for row in own if row["seed"] == seed]
                for seed in seeds
            ]
        )
        best = np.minimum.accumulate(losses, axis=1)
        axes.plot(steps, best.mean(0), "o-", markersize=3, color=color, label=agent)
        axes.fill_between(steps, best.min(0), best.max(0), color=color, alpha=0.2)
    published = {"PES": (432, "top"), "random search": (452, "bottom")}
    published["truncated ES"] = (491, "bottom")
    for name, (value, side) in published.items():
        axes.axhline(value, color="0.5", linewidth=0.8, linestyle=":")
        text = f"published, {name}, 3,000,000 steps"
        axes.annotate(text, (0, value), fontsize=7, ha="left", va=side)
    axes.set_yscale("log")
    axes.set_yticks([400, 500, 700, 1000, 1500, 2000])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(
        title="29 hyperparameters on Fashion-MNIST, published sizes",
        xlabel="steps of training, of all particles",
        ylabel="validation loss summed over 1000 steps, best so far",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(HERE / "hyperparameters.png")


if __name__ == "__main__":
    draw_schedules()
    draw_hyperparameters()
