"""Random search: the best of many parameters drawn around the first ones.

    low, high = theta - radius, theta + radius, or bounds of the problem's own
    best = theta, best loss = infinity
    repeat:
        draw theta_i, each coordinate uniform from low to high, for each particle i
        L_i = loss of one whole episode under theta_i
        best, best loss = the lowest of these and the best so far
        gradient = theta - best

The "gradient" is not one of the loss. It is the difference from the best parameters to
theta, so plain SGD of learning rate 1 makes theta the best so far, to the rounding of
two subtractions; the state has the best to the bit. Other steps have no meaning.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from pes_rl.agents.core.derivatives import check_num_particles
from pes_rl.agents.core.estimator import check_whole_episodes
from pes_rl.agents.core.perturbations import draw_in_blocks
from pes_rl.agents.core.random_normals import uniform_rows
from pes_rl.agents.core.report import Report, describe
from pes_rl.agents.es import play_episodes
from pes_rl.envs.rollout.base import Particles, Rollout, Thetas
from pes_rl.envs.rollout.episodes import Segment


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RandomSearchState:
    """State of random search: particles, the range searched, and the best so far.

    Attributes:
        particles: N particles.
        centre: First parameters, the middle of the range searched but for bounds of
            the problem's own. # shape=(D,), dtype=float32
        best: Parameters with the lowest loss so far. # shape=(D,), dtype=float32
        best_loss: Their loss; infinity before the first estimate.
            # shape=(), dtype=float32
    """

    particles: Particles
    centre: jax.Array
    best: jax.Array
    best_loss: jax.Array


@dataclass(frozen=True)
class RandomSearch:
    """Random search: one whole episode for each of N new parameter vectors an update.

    Each vector has a single episode, so where episodes are random the best loss so far
    is partly luck. Parameters whose simulation diverged are never the best. A resumed
    run whose simulations could not be saved starts a new search, around the best.

    Attributes:
        num_particles: Parameter vectors N drawn in an update.
        search_radius: Largest distance of each coordinate from its first value; an
            array for ranges of different widths. # shape=() or (D,)
        search_bounds: In place of the radius: the lowest and the highest value of each
            coordinate, whatever the first ones are. # shape=(D,) each

    Example (an update is made as in the example of `PES`):
        >>> search = RandomSearch(num_particles=8, search_radius=1.0)
        >>> search.max_steps(horizon=100)  # environment steps of an update
        800
    """

    num_particles: int
    search_radius: Any = None
    search_bounds: tuple[Any, Any] | None = field(
        default=None, metadata={"from_problem": True}
    )

    def __post_init__(self) -> None:
        check_num_particles(self.num_particles)
        if (self.search_radius is None) == (self.search_bounds is None):
            raise ValueError(
                "random-search needs a search_radius, or "
                "search_bounds (low, high); use search_radius=1.0, for example"
            )
        if isinstance(self.search_radius, int | float) and not self.search_radius > 0:
            raise ValueError(
                f"search_radius={self.search_radius} must be above 0; "
                "use 1.0, for example"
            )

    def max_steps(self, horizon: int | None) -> int:
        assert horizon is not None  # init refuses a rollout without one
        return self.num_particles * horizon

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array
    ) -> RandomSearchState:
        check_whole_episodes("random-search", rollout.horizon)
        particles = rollout.reset(key, self.num_particles, members=1)
        return RandomSearchState(particles, theta, theta, jnp.float32(jnp.inf))

    def estimate(
        self,
        rollout: Rollout,
        theta: jax.Array,
        state: RandomSearchState,
        key: jax.Array,
    ) -> tuple[jax.Array, RandomSearchState, Report]:
        draw = Partial(
            _draw,
            key,
            *self._bounds(state.centre),
            self.num_particles,
            blocks=not rollout.on_device,
        )
        thetas = draw(rows=slice(0, self.num_particles))
        particles, segment = play_episodes(
            rollout, state.particles, Thetas(thetas, draw)
        )
        best, best_loss, winner = choose(segment, thetas, state.best, state.best_loss)
        gradient = theta - best
        # The report sums parts; the whole "gradient" is the best particle's part.
        contributions = jnp.zeros_like(thetas).at[winner].set(gradient)
        report = describe(state.particles, particles, segment, contributions)
        after = RandomSearchState(particles, state.centre, best, best_loss)
        return gradient, after, report

    def _bounds(self, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.search_bounds is None:
            return centre - self.search_radius, centre + self.search_radius
        low, high = (jnp.asarray(end, centre.dtype) for end in self.search_bounds)
        return low, high


def _draw(*arguments: Any, rows: slice, blocks: bool) -> jax.Array:
    """The given rows of `draw_uniformly`; not jitted itself, as `perturb` requires."""
    count = rows.stop - rows.start
    return draw_uniformly(*arguments, first=rows.start, count=count, blocks=blocks)


@partial(jax.jit, static_argnames=("num_draws", "count", "blocks"))
def draw_uniformly(
    key: jax.Array,
    low: jax.Array,
    high: jax.Array,
    num_draws: int,
    *,
    first: int | jax.Array = 0,
    count: int | None = None,
    blocks: bool = False,
) -> jax.Array:
    """Uniform draws between low and high [D], `count` of them from `first` on.

    Without `count`, all. # shape=(count, D)
    """
    rows = partial(uniform_rows, key, low[None], high[None], low.size)
    count = num_draws if count is None else count
    return draw_in_blocks(rows, num_draws, low.size, first, count, blocks)


@jax.jit
def choose(
    segment: Segment, thetas: jax.Array, best: jax.Array, best_loss: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best parameters after these episodes, their loss, and the best particle.

    Args:
        segment: One whole episode of each particle.
        thetas: Parameters of each particle. # shape=(N, D)
        best: Best parameters before. # shape=(D,)
        best_loss: Their loss. # shape=()

    Returns:
        (best [D], best loss, index of the particle with the lowest loss).
    """
    loss = jnp.where(segment.diverged.any(0), jnp.inf, segment.loss.sum(0))
    winner = jnp.argmin(loss)
    improves = loss[winner] < best_loss
    best = jnp.where(improves, thetas[winner], best)
    return best, jnp.where(improves, loss[winner], best_loss), winner
