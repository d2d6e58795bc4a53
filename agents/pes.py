"""Persistent Evolution Strategies (Vicol, Metz, Sohl-Dickstein 2021, Algorithm 2).

    for each particle i: s_i = first state, xi_i = 0
    repeat:
        draw antithetic perturbations e_i ~ N(0, sigma^2 I)
        s_i, L_i = unroll(s_i, theta + e_i, K steps)
        xi_i = xi_i + e_i
        gradient = 1 / (N sigma^2) sum_i xi_i L_i

An episode of m unrolls has m perturbations. The loss of its t-th unroll depends on the
first t of them, and the score function of that loss is their sum over sigma^2.

With a trace decay lambda below 1, xi_i = lambda xi_i + e_i: less variance, and a bias.
With a critic b, L_i + b(s'_i) - b(s_i) takes the place of L_i, s' the state after the
unroll: unbiased for every b with lambda = 1, and with less bias below 1 if b is good.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from pes_rl.agents.core.accumulators import Accumulators, UpdateHistory, accumulate
from pes_rl.agents.core.chunks import chunk_size, in_chunks
from pes_rl.agents.core.critic import (
    Critic,
    check_critic_discount,
    critic_losses,
    critic_states,
    make_critic,
)
from pes_rl.agents.core.estimator import (
    PartialUnrollEstimator,
    check_trace_decay,
    check_truncation_length,
)
from pes_rl.agents.core.fitness_shaping import (
    FitnessShaping,
    check_fitness_shaping,
    shaped_loss,
)
from pes_rl.agents.core.perturbations import perturb_antithetic
from pes_rl.agents.core.report import Report, describe
from pes_rl.envs.rollout.base import Particles, Rollout
from pes_rl.envs.rollout.episodes import Segment, split_loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PESState:
    """State of PES between two updates: particles and their accumulators.

    Attributes:
        particles: N particles.
        accumulator: Sum of the perturbations of each running episode, decayed. With a
            `past`, the number of these perturbations instead; see `Accumulators`.
            # shape=(N, D) or (N, 1), dtype=float32
        sigma: Standard deviation that the accumulator refers to.
            # shape=() or (1, D), dtype=float32
        past: Updates from which accumulators are recomputed; None if they are kept.
        critic: The critic; None without one.
    """

    particles: Particles
    accumulator: jax.Array
    sigma: jax.Array
    past: UpdateHistory | None = None
    critic: Critic | None = None

    def adopt(self, before: "PESState") -> "PESState":
        """This new state, with the critic of `before`."""
        if self.critic is None or before.critic is None:
            return self
        return replace(self, critic=self.critic.adopt(before.critic))


@dataclass(frozen=True)
class PES(PartialUnrollEstimator):
    """PES: an unbiased gradient estimate from partial unrolls.

    Unbiased for the loss smoothed by one perturbation in each unroll of the episode.

    Differences from the paper: episodes may end at any step of an unroll, the members
    of a pair end independently (so the accumulator is per particle), the particles'
    phases can be staggered over the episode, and sigma may change between two updates
    (the accumulator is then rescaled, see `Accumulators.decay`).

    A particle whose episode ends inside an unroll waits, and begins its next episode
    with the next unroll. Each episode then contributes its own losses alone: K = T is
    full-episode ES, and the estimate is unbiased even where theta decides when episodes
    end. With `restart_at_once` the next episode begins in the same unroll and no step
    is idle; that is unbiased only where ends do not depend on theta.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        truncation_length: Steps K of a partial unroll, at most the horizon T. K = T is
            full-episode ES.
        sigma: Standard deviation of the perturbations.
        stagger: Spread the particles over the episode, so that every update sees all
            phases of it; needs a finite horizon.
        restart_at_once: Begin the next episode inside the unroll in which one ended.
        pairs_per_chunk: Pairs whose perturbations are in memory at once; None takes
            all, or as many as fit. With chunks and a finite horizon, accumulators are
            recomputed in each update instead of kept.
        trace_decay: Factor lambda in [0, 1] by which an unroll multiplies the
            accumulator before it adds its own perturbation. Below 1 the estimate is
            biased and has less variance; 0 is the single unroll, from each particle's
            own state. See "Trace decay" in docs/estimators.md.
        fitness_shaping: `none`; or `centered-ranks` or `top-pairs` of the losses of
            each unroll, which change what is estimated (docs/fitness_shaping.md) and
            need all pairs at once, without `restart_at_once`.
        num_top_pairs: Pairs b that are used with `top-pairs`.
        critic_discount: Discount g in (0, 1] a step of a critic of the observations
            (`agents/core/critic.py`), which leaves the mean as it is with lambda = 1;
            None for none. Needs observations, all pairs at once, unshaped losses, and
            no `restart_at_once`.

    Example:
        >>> from pes_rl.envs import DeviceRollout, make
        >>> rollout = DeviceRollout(make("unrolled:toy-regression"), horizon=100)
        >>> pes = PES(num_pairs=4, truncation_length=20, sigma=0.1)
        >>> theta = jnp.array([-4.0, -4.0])
        >>> state = pes.init(rollout, theta, jax.random.key(0))
        >>> key = jax.random.key(1)  # a new one for each update
        >>> gradient, state, report = pes.estimate(rollout, theta, state, key)
        >>> theta = theta - 1e-5 * gradient
        >>> gradient.shape, int(report.env_steps)
        ((2,), 160)
    """

    stagger: bool = False
    restart_at_once: bool = False
    pairs_per_chunk: int | None = None
    trace_decay: float = 1.0
    fitness_shaping: FitnessShaping = "none"
    num_top_pairs: int | None = None
    critic_discount: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_trace_decay(self.trace_decay)
        check_fitness_shaping(self)
        check_critic_discount(self.critic_discount)
        if self.critic_discount is not None:
            self._check_critic()

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> PESState:
        check_truncation_length(self.truncation_length, rollout.horizon)
        particles = rollout.reset(key, self.num_pairs, stagger=self.stagger)
        past = None
        is_cut = chunk_size(self, rollout, theta) < self.num_pairs
        if is_cut and rollout.horizon is not None:
            # The most unrolls that an episode can have.
            past = UpdateHistory.empty(-(-rollout.horizon // self.truncation_length))
        stored = self._accumulators(past, theta).zeros()
        critic = None
        if self.critic_discount is not None:
            critic = make_critic(rollout, particles)
        return PESState(particles, stored, jnp.float32(self.sigma), past, critic)

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: PESState, key: jax.Array
    ) -> tuple[jax.Array, PESState, Report]:
        accumulators = self._accumulators(state.past, theta)

        def estimate_pairs(first: Any, rows: Any) -> tuple[jax.Array, Any, Report]:
            before, stored, critic = rows
            n = len(stored) // 2
            e, thetas = perturb_antithetic(
                rollout, theta, key, self.num_pairs, self.sigma, first=first, count=n
            )
            after, segment = rollout.unroll(
                before,
                thetas,
                self.truncation_length,
                single_episode=not self.restart_at_once,
            )
            xi = accumulators.load(stored, first)
            loss, std, explained = None, None, None
            if self.fitness_shaping != "none":
                loss, std = shaped_loss(self, segment)
            if critic is not None:
                states = (critic_states(rollout, p) for p in (before, after))
                made, critic = critic_losses(
                    critic, *states, segment, self.critic_discount
                )
                loss, std, explained = made.delta, made.std, made.explained
            contributions, xi = pes_gradient(segment, xi, e, self.sigma, loss)
            report = describe(before, after, segment, contributions, xi, loss_std=std)
            report = replace(report, critic_explained=explained)
            stored = accumulators.store(stored, segment, xi)
            return contributions, (after, stored, critic), report

        stored = accumulators.decay(state.accumulator, state.sigma)
        rows = state.particles, stored, state.critic
        gradient, rows, report = in_chunks(self, rollout, theta, estimate_pairs, rows)
        particles, stored, critic = rows
        past, sigma = accumulators.push(key), jnp.float32(self.sigma)
        return gradient, PESState(particles, stored, sigma, past, critic), report

    def _check_critic(self) -> None:
        """Raise `ValueError` for options that a critic excludes."""
        if self.restart_at_once:
            raise ValueError(
                "critic_discount needs one episode of each particle, and with "
                "restart_at_once an unroll has two; drop one of them"
            )
        if self.fitness_shaping != "none":
            raise ValueError(
                f"critic_discount predicts losses, and fitness_shaping="
                f"{self.fitness_shaping} changes them in each unroll; drop one of them"
            )

    def _accumulators(
        self, past: UpdateHistory | None, theta: jax.Array
    ) -> Accumulators:
        return Accumulators(
            past, self.num_pairs, theta.size, self.sigma, self.trace_decay
        )


@jax.jit
def pes_gradient(
    segment: Segment,
    accumulator: jax.Array,
    perturbation: jax.Array,
    sigma: Any,
    shaped_loss: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Each particle's part of the PES gradient, and the accumulators after the unroll.

    With xi the accumulator before the unroll, e this unroll's perturbation, L_old the
    loss up to and including the first end of an episode and L_new the loss after it:

        part_i = ((xi_i + e_i) L_old_i + e_i L_new_i) / (N sigma^2)

    The gradient is the sum of the parts. Without an end in the unroll this is
    Algorithm 2. The perturbation of a new episode is e alone, so e is the weight of its
    losses and its accumulator. The accumulator of an episode that has not begun is 0.

    Args:
        segment: An unroll of K steps by N particles.
        accumulator: xi before the unroll, decayed if it is. # shape=(N, D)
        perturbation: e of this unroll. # shape=(N, D)
        sigma: Standard deviation of the perturbations, one for all or [1, D].
        shaped_loss: What takes the place of L_old where losses are shaped or a critic
            changes them, in an unroll of single episodes; None for the segment's.
            # shape=(N,)

    Returns:
        (parts [N, D], accumulator after the unroll [N, D]).

    Example:
        >>> loss, no = jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2), bool)
        >>> segment = Segment(loss, ended=no, diverged=no, simulated=~no)
        >>> xi, e = jnp.array([[0.25], [-0.25]]), jnp.array([[0.5], [-0.5]])
        >>> parts, xi = pes_gradient(segment, xi, e, sigma=0.5)
        >>> parts.sum(0).tolist(), xi.tolist()
        ([-3.0], [[0.75], [-0.75]])
    """
    summed = accumulator + perturbation
    old, new = split_loss(segment)
    if shaped_loss is not None:
        old = shaped_loss  # Without restarts, nothing comes after the first end.
    weighted = summed * old[:, None] + perturbation * new[:, None]
    parts = weighted / (perturbation.shape[0] * sigma**2)
    return parts, accumulate(segment, accumulator, perturbation)
