"""A stream of noise reuse, or of full-episode ES.

A chain is an antithetic pair with one perturbation an episode. With unrolls as long as
the longest episode it is full-episode ES.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from pes_rl.agents import es_gradient
from pes_rl.agents.core.perturbations import perturb
from pes_rl.agents.nres import episode_perturbations
from pes_rl.analysis.signal_stream import Setting, State, Update, update_of_pairs
from pes_rl.envs import Rollout


@dataclass(frozen=True)
class NRESStream:
    """NRES, or full-episode ES.

    Attributes:
        length: Steps K of an unroll.
        sigma: Standard deviation of the perturbations.
        agent: Its name: "nres", or "es" where K is the longest episode's steps.
    """

    length: int
    sigma: float
    agent: str = "nres"

    shares_states: ClassVar[bool] = False

    @property
    def settings(self) -> tuple[Setting, ...]:
        return (Setting(self.agent, self.length),)

    def init(
        self, rollout: Rollout, theta: jax.Array, key: jax.Array, chains: int
    ) -> State:
        del theta
        reset_key, key = jax.random.split(key)
        return rollout.reset(reset_key, chains), jax.random.key_data(key)

    def update(
        self, rollout: Rollout, theta: jax.Array, state: State, key: jax.Array
    ) -> tuple[Update, State]:
        del key  # The state decides every perturbation.
        before, noise_key = state
        episode = before.clock.episode
        chains = len(episode) // 2
        sigma = jnp.full(len(episode), self.sigma, jnp.float32)
        e, thetas = perturb(
            rollout,
            theta,
            chains,
            episode_perturbations,
            sigma,
            noise_key,
            episode,
            theta.size,
            num_pairs=chains,
        )
        after, segment = rollout.unroll(
            before, thetas, self.length, single_episode=True
        )
        parts = es_gradient(segment.loss.sum(0), e, self.sigma)
        return update_of_pairs(parts[None], segment), (after, noise_key)
