"""The meta-loss over two parameters, raw and smoothed, with paths on it: `surface`.

The smoothed loss is the mean under normal noise of the two parameters, a sum over the
grid's points up to 4 sigma away: ripples finer than the grid are not averaged out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.ndimage import gaussian_filter

from pes_rl.analysis.output import Row, Table, print_table, write_csv
from pes_rl.analysis.subject import Subject, make_subject
from pes_rl.analysis.surface_figure import Path2D, draw_surface
from pes_rl.assembly.assemble import assemble
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs.rollout.device import DeviceRollout
from pes_rl.runtime.progress import Progress

Limits = tuple[float, float]


@dataclass(frozen=True)
class Surface:
    """Meta-loss over two parameters of an unrolled problem, and agents' paths on it."""

    env: str = "unrolled:toy-regression"
    """An unrolled problem."""
    parameters: tuple[int, int] = (0, 1)
    """Places in theta of the two; the others keep their first values."""
    low: Limits = (-5.0, -5.0)
    """Lowest values of the two."""
    high: Limits = (5.0, 5.0)
    """Highest values of the two."""
    points: int = 100
    """Points of the grid along each."""
    sigma: float = 0.3
    """Standard deviation of the smoothing, over these two parameters."""
    agent: tuple[str, ...] = ()
    """Agents whose training is drawn as paths."""
    settings: str = "{}"
    """Settings of their training in place of the task's defaults, as a JSON object of
    pes_rl.train's."""
    runs: int = 1
    """Training runs of each agent, on consecutive seeds."""
    updates: int = 1000
    """Updates of each."""
    path_points: int = 100
    """Points kept of a path."""
    env_kwargs: str = "{}"
    """Options of the problem, as a JSON object."""
    seed: int = 0
    """Seed of the episodes and of the training."""
    logdir: str = "runs/surface"
    """Folder of surface.csv, surface.png, summary.csv (the lowest points, and where the
    paths end) and paths.csv."""

    def run(self) -> None:
        """Compute, draw and write.

        Raises:
            ValueError: If the problem has no such parameters, or an option is bad.
        """
        subject = make_subject(self.env, env_kwargs=self.env_kwargs, seed=self.seed)
        self._check(subject)
        axes = [
            np.linspace(*limits, self.points)
            for limits in zip(self.low, self.high, strict=True)
        ]
        steps = [axis[1] - axis[0] for axis in axes]
        if self.sigma < max(steps):
            raise ValueError(
                f"sigma={self.sigma} is below the grid's spacing of {max(steps):.3g}; "
                "use more points"
            )
        # Wide enough that the smoothing near the edge sees no edge.
        margins = [int(np.ceil(4 * self.sigma / step)) for step in steps]
        wide = [
            axis[0] + step * np.arange(-margin, self.points + margin)
            for axis, step, margin in zip(axes, steps, margins, strict=True)
        ]
        raw = meta_losses(subject, self.parameters, wide[0], wide[1], self.seed)
        smooth = gaussian_filter(raw, [self.sigma / step for step in steps])
        inside = tuple(slice(m, m + self.points) for m in margins)
        raw, smooth = raw[inside], smooth[inside]
        out = Path(self.logdir)
        Table(out / "surface.csv").add(*grid_rows(axes, raw, smooth))
        paths = self._paths(Table(out / "paths.csv"))
        rows = summarize(axes, raw, smooth, paths)
        write_csv(out / "summary.csv", rows)
        print_table(rows)
        self._draw(out / "surface.png", subject, axes, raw, smooth, paths)
        print(f"results: {out}")

    def _draw(
        self,
        file: Path,
        subject: Subject,
        axes: list[np.ndarray],
        raw: np.ndarray,
        smooth: np.ndarray,
        paths: list[Path2D],
    ) -> None:
        assert subject.problem is not None
        names = [subject.problem.parameter_names[i] for i in self.parameters]
        which = "sum" if subject.problem.meta_loss == "sum" else "last"
        label = f"{which} of the losses of {subject.horizon} steps"
        maps = {"meta-loss": raw, f"smoothed, sigma {self.sigma:g}": smooth}
        draw_surface(file, maps, axes, names, label, paths)

    def _check(self, subject: Subject) -> None:
        if subject.problem is None:
            raise ValueError(
                f"{self.env} is no unrolled problem; use unrolled:toy-regression, for "
                "example"
            )
        size = subject.theta.size
        if len(set(self.parameters)) < 2 or not all(
            0 <= i < size for i in self.parameters
        ):
            raise ValueError(
                f"parameters={self.parameters} must be two different places of "
                f"{self.env}'s {size}, from 0 on"
            )
        if self.agent and size != 2:
            raise ValueError(
                f"paths are drawn for problems of two parameters, and {self.env} has "
                f"{size}; drop agents"
            )
        for agent in self.agent:
            self._config(agent, self.seed)
        if (
            self.points < 2
            or not self.sigma > 0
            or self.runs < 1
            or not 1 <= self.path_points <= self.updates
        ):
            raise ValueError(
                "points must be at least 2, sigma above 0, runs at least 1, and "
                "path_points from 1 to the updates"
            )
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low={self.low} must be below high={self.high}")

    def _config(self, agent: str, seed: int) -> TrainConfig:
        try:
            settings = json.loads(self.settings)
            return make_config(
                self.env,
                agent,
                **{**settings, "env_kwargs": self.env_kwargs},
                seed=seed,
            )
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"settings={self.settings!r} is no JSON object of settings but the "
                "seed; write for example '{\"num_pairs\": 5}'"
            ) from error

    def _paths(self, table: Table) -> list[Path2D]:
        """Paths of all agents and runs, added to the table one by one."""
        names = [
            (agent, seed)
            for agent in self.agent
            for seed in range(self.seed, self.seed + self.runs)
        ]
        paths: list[Path2D] = []
        if not names:
            return paths
        with Progress(f"surface {self.env}", len(names), "paths") as progress:
            for agent, seed in names:
                path = Path2D(agent, seed, self._path(agent, seed))
                table.add(*path.rows())
                paths.append(path)
                progress.update(len(paths), f"{agent}, seed {seed}")
        return paths

    def _path(self, agent: str, seed: int) -> np.ndarray:
        """Path of one training run: rows [3] of updates so far and theta."""
        config = self._config(agent, seed)
        assembly = assemble(config)
        key = jax.random.key(seed)
        state = assembly.learner.init(
            assembly.init_theta(key), jax.random.fold_in(key, 1)
        )
        every = self.updates // self.path_points
        path = [np.array([0, *np.asarray(state.theta)])]
        for number in range(1, self.path_points + 1):
            state, _ = assembly.learner.run(state, every)
            path.append(np.array([number * every, *np.asarray(state.theta)]))
        return np.stack(path)


def meta_losses(
    subject: Subject,
    parameters: tuple[int, int],
    first: np.ndarray,
    second: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Meta-loss of one episode at each point of the grid, with the same random key.

    Returns:
        # shape=(len(first), len(second)), dtype=float64
    """
    rollout: Any = subject.rollout
    assert isinstance(rollout, DeviceRollout) and subject.problem is not None
    keeps_last = subject.problem.meta_loss == "last"
    particles = rollout.reset(jax.random.key(seed), 1, members=1)

    def row(value: jax.Array) -> jax.Array:
        thetas = jnp.broadcast_to(subject.theta, (len(second), subject.theta.size))
        thetas = thetas.at[:, parameters[0]].set(value)
        thetas = thetas.at[:, parameters[1]].set(jnp.asarray(second, thetas.dtype))
        everyone = rollout.take(particles, jnp.zeros(len(second), int))
        _, segment = rollout.unroll(
            everyone, thetas, subject.horizon, single_episode=True
        )
        last = jnp.where(segment.ended, segment.loss, 0.0)
        return (last if keeps_last else segment.loss).sum(0)

    values = jnp.asarray(first, subject.theta.dtype)
    return np.asarray(jax.jit(lambda v: lax.map(row, v))(values), np.float64)


def grid_rows(axes: list[np.ndarray], raw: np.ndarray, smooth: np.ndarray) -> list[Row]:
    """Rows of surface.csv; the second parameter changes fastest."""
    return [
        {
            "first": float(first),
            "second": float(second),
            "loss": float(raw[i, j]),
            "smoothed_loss": float(smooth[i, j]),
        }
        for i, first in enumerate(axes[0])
        for j, second in enumerate(axes[1])
    ]


def summarize(
    axes: list[np.ndarray], raw: np.ndarray, smooth: np.ndarray, paths: list[Path2D]
) -> list[Row]:
    """The grid's lowest points, and the mean of each path's last fifth.

    With the losses there: those of the nearest point of the grid, NaN outside it.
    """
    places = []
    for name, values in (("lowest", raw), ("lowest, smoothed", smooth)):
        i, j = np.unravel_index(np.nanargmin(values), values.shape)
        places.append((name, "", axes[0][i], axes[1][j]))
    for path in paths:
        end = path.points[-max(len(path.points) // 5, 1) :, 1:].mean(0)
        places.append((path.agent, path.seed, *end))
    return [
        {
            "what": name,
            "seed": seed,
            "first": float(first),
            "second": float(second),
            "loss": _nearest(axes, raw, first, second),
            "smoothed_loss": _nearest(axes, smooth, first, second),
        }
        for name, seed, first, second in places
    ]


def _nearest(axes: list[np.ndarray], values: np.ndarray, *place: float) -> float:
    inside = all(a[0] <= x <= a[-1] for a, x in zip(axes, place, strict=True))
    nearest = [int(abs(a - x).argmin()) for a, x in zip(axes, place, strict=True)]
    return float(values[tuple(nearest)]) if inside else float("nan")
