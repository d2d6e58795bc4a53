"""The meta-loss over two parameters, raw and smoothed, with paths on it: `surface`.

The smoothed loss is the mean under normal noise of the two parameters, a sum over the
grid's points up to 4 sigma away: ripples finer than the grid are not averaged out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.ndimage import gaussian_filter

from pes_rl.analysis.output import new_figure, write_csv
from pes_rl.analysis.subject import Subject, make_subject
from pes_rl.assembly import assemble
from pes_rl.config import make_config
from pes_rl.envs.device import DeviceRollout

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
    agents: tuple[str, ...] = ()
    """Agents trained with the task's default settings; their paths are drawn."""
    updates: int = 1000
    """Updates of each."""
    path_points: int = 100
    """Points kept of a path."""
    env_kwargs: str = "{}"
    """Options of the problem, as a JSON object."""
    seed: int = 0
    """Seed of the episodes and of the training."""
    out: str = "runs/surface"
    """Folder of surface.npz, paths.csv and surface.png."""

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
        paths = {agent: self._path(agent) for agent in self.agents}
        out = Path(self.out)
        out.mkdir(parents=True, exist_ok=True)
        np.savez(
            out / "surface.npz",
            first=axes[0],
            second=axes[1],
            raw=raw[inside],
            smoothed=smooth[inside],
        )
        if paths:
            write_csv(out / "paths.csv", _path_rows(paths))
        self._draw(
            out / "surface.png", subject, axes, raw[inside], smooth[inside], paths
        )
        print(f"results: {out}")

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
        if self.agents and size != 2:
            raise ValueError(
                f"paths are drawn for problems of two parameters, and {self.env} has "
                f"{size}; drop agents"
            )
        for agent in self.agents:
            make_config(self.env, agent)
        if (
            self.points < 2
            or not self.sigma > 0
            or not 1 <= self.path_points <= self.updates
        ):
            raise ValueError(
                "points must be at least 2, sigma above 0, and path_points from 1 to "
                "the updates"
            )
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low={self.low} must be below high={self.high}")

    def _path(self, agent: str) -> np.ndarray:
        """Rows [3] of updates so far and theta, of a training run."""
        config = make_config(
            self.env, agent, seed=self.seed, env_kwargs=self.env_kwargs
        )
        assembly = assemble(config)
        key = jax.random.key(self.seed)
        state = assembly.learner.init(
            assembly.init_theta(key), jax.random.fold_in(key, 1)
        )
        every = self.updates // self.path_points
        path = [np.array([0, *np.asarray(state.theta)])]
        for number in range(1, self.path_points + 1):
            state, _ = assembly.learner.run(state, every)
            path.append(np.array([number * every, *np.asarray(state.theta)]))
        return np.stack(path)

    def _draw(
        self,
        file: Path,
        subject: Subject,
        axes: list[np.ndarray],
        raw: np.ndarray,
        smooth: np.ndarray,
        paths: dict[str, np.ndarray],
    ) -> None:
        assert subject.problem is not None
        figure = new_figure(11, 5)
        titles = ("meta-loss", f"smoothed, sigma {self.sigma:g}")
        names = [subject.problem.parameter_names[i] for i in self.parameters]
        low, high = np.quantile(raw[np.isfinite(raw)], [0.0, 0.95])
        for place, (title, values) in enumerate(
            zip(titles, (raw, smooth), strict=True)
        ):
            panel = figure.add_subplot(1, 2, place + 1)
            mesh = panel.pcolormesh(
                *axes, values.T, vmin=low, vmax=high, rasterized=True
            )
            for number, (agent, path) in enumerate(paths.items()):
                panel.plot(path[:, 1], path[:, 2], color=f"C{number + 1}", label=agent)
                panel.plot(*path[-1, 1:], "o", color=f"C{number + 1}")
            panel.set(title=title, xlabel=names[0], ylabel=names[1])
            panel.set_xlim(self.low[0], self.high[0])
            panel.set_ylim(self.low[1], self.high[1])
            figure.colorbar(mesh, ax=panel)
        if paths:
            figure.axes[0].legend(loc="lower left")
        figure.savefig(file)


def meta_losses(
    subject: Subject,
    parameters: tuple[int, int],
    first: np.ndarray,
    second: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Meta-loss of one episode at each point of the grid, the same episode at all.

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


def _path_rows(paths: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [
        {"agent": agent, "update": int(update), "first": float(a), "second": float(b)}
        for agent, path in paths.items()
        for update, a, b in path
    ]
