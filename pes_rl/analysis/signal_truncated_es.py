"""A stream of truncated ES.

A chain is the mean theta's own episode, and two pairs in each unroll that start from
its state.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from pes_rl.agents import es_gradient
from pes_rl.agents.core.perturbations import perturb_antithetic
from pes_rl.analysis.signal_stream import Setting, State, Update, pair_steps
from pes_rl.envs import Rollout, Segment


@dataclass(frozen=True)
class TruncatedESStream:
    """Truncated ES, with two pairs from the state of each chain.

    Two are enough to tell the noise of the pairs, which falls as 1 / P, from that of
    the state, which all P pairs of an update share.

    Attributes:
        length: Steps K of an unroll.
        sigma: Standard deviation of the perturbations.
    """

    length: int
    sigma: float

    shares_states: ClassVar[bool] = True

    @property
    def settings(self) -> tuple[Setting, ...]:
        return (Setting("truncated-es", self.length),)

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array, chains: int
    ) -> State:
        del theta
        return rollout.reset(key, chains, members=1), None

    def update(
        self, rollout: Rollout, theta: jax.Array, state: State, key: jax.Array
    ) -> tuple[Update, State]:
        mean, _ = state
        chains = len(mean.clock.episode)
        e, thetas = perturb_antithetic(rollout, theta, key, 2 * chains, self.sigma)
        start = rollout.take(mean, jnp.repeat(jnp.arange(chains), 4))
        _, segment = rollout.unroll(start, thetas, self.length, single_episode=True)
        mean, mean_segment = rollout.unroll(
            mean, theta[None], self.length, single_episode=True
        )
        parts = es_gradient(segment.loss.sum(0), e, self.sigma)
        update = update_of_chains(parts, segment, mean_segment)
        return update, (mean, None)


@jax.jit
def update_of_chains(
    parts: jax.Array, segment: Segment, mean_segment: Segment
) -> Update:
    """The update where each chain has two pairs, from its particles' parts [N, D]."""
    particles, parameters = parts.shape
    chains = particles // 4
    pairs = 2 * chains * parts.reshape(chains, 2, 2, parameters).sum(2)
    return Update(
        estimates=pairs.mean(1)[None],
        pair_noise=jnp.sum((pairs[:, 0] - pairs[:, 1]) ** 2, axis=1) / 2,
        pair_steps=pair_steps(segment, chains) / 2,
        shared_steps=mean_segment.simulated.sum(0).astype(jnp.float32),
    )
