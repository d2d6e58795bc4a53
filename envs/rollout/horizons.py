"""Time limits that vary from episode to episode."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.observations import Array


@dataclass(frozen=True)
class VaryingHorizon:
    """A time limit for each episode, between a shortest and a longest one.

    With a = `shortest` and b = `longest`, the limit T of the j-th episode (from 0) of a
    particle is, rounded down to a whole number of steps and at most b,

        log-uniform:  T = a ((b + 1) / a)^u,     u uniform in [0, 1)
        growing:      T = a (b / a)^min(j / E, 1),   E = `growth_episodes`

    u depends only on the particle's seed and on j, so the members of a pair have the
    same limits, and a limit never depends on theta: given the limits, each estimator is
    as unbiased as with fixed ones, and the objective is the mean over the limits. Most
    episodes of log-uniform limits are short: the mean limit is about (b - a) / ln(b/a).

    Attributes:
        shortest: a, in steps.
        longest: b, in steps; the rollout's `horizon`.
        kind: `log-uniform` or `growing`.
        growth_episodes: E, for `growing`.

    Raises:
        ValueError: If not 1 <= a <= b.

    Source: log-uniform lengths are those with which learned optimisers are
    meta-trained (Metz et al. 2022, VeLO; 2020, "Tasks, stability, architecture, and
    compute"). There all particles of an update share one length; here each pair draws
    its own, which keeps their phases apart.

    >>> limits = VaryingHorizon(10, 1000, "growing", growth_episodes=2)
    >>> limits(np.zeros((3, 2), np.uint32), np.arange(3)).tolist()
    [10, 100, 1000]
    """

    shortest: int
    longest: int
    kind: Literal["log-uniform", "growing"] = "log-uniform"
    growth_episodes: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                f"shortest_horizon={self.shortest} must be from 1 to the horizon "
                f"{self.longest}"
            )

    def __call__(self, seed: Array, episode: Array) -> jax.Array:
        """Limits of these episodes. # shape=(N,), dtype=int32.

        Args:
            seed: Key data of each particle. # shape=(N, 2)
            episode: Index of each particle's episode. # shape=(N,)
        """
        return _limits(self, jnp.asarray(seed), jnp.asarray(episode))


@jax.jit(static_argnums=0)
def _limits(horizons: VaryingHorizon, seed: jax.Array, episode: jax.Array) -> jax.Array:
    shortest, longest = horizons.shortest, horizons.longest
    if horizons.kind == "growing":
        ratio = longest / shortest
        share = jnp.minimum(episode / horizons.growth_episodes, 1.0)
    else:
        ratio = (longest + 1) / shortest
        share = jax.vmap(_uniform)(seed, episode)
    # Powers in float32 can miss a whole number by a few units in the last place.
    limit = jnp.floor(shortest * ratio**share * (1 + 1e-6))
    return jnp.clip(limit, shortest, longest).astype(jnp.int32)


def _uniform(seed: jax.Array, episode: jax.Array) -> jax.Array:
    """A number in [0, 1) from a key that no environment's episode gets."""
    key = jax.random.fold_in(jax.random.wrap_key_data(seed), episode)
    return jax.random.uniform(jax.random.fold_in(key, _HORIZON_STREAM))


# Large, because environments fold in small numbers such as that of a step.
_HORIZON_STREAM = np.uint32(0x9E3779B9)
