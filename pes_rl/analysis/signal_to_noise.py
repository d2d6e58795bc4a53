"""Signal and noise of the estimators at a trained policy, to choose one: `signal`.

docs/signal.md says what is measured and how to read it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from pes_rl.agents.core.critic import check_critic_discount, make_critic
from pes_rl.agents.core.estimator import (
    check_population,
    check_trace_decay,
    check_truncation_length,
)
from pes_rl.analysis.signal_nres import NRESStream
from pes_rl.analysis.signal_pes import PESStream
from pes_rl.analysis.signal_report import write_report
from pes_rl.analysis.signal_statistics import estimates, is_reference, make_replicates
from pes_rl.analysis.signal_stream import Setting, Stream
from pes_rl.analysis.signal_sums import Measured, measure
from pes_rl.analysis.signal_truncated_es import TruncatedESStream
from pes_rl.analysis.signal_verdict import decide
from pes_rl.analysis.trained_subject import TrainedSubject, load_subject
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs.names import unknown_name
from pes_rl.run_folder.reader import find_run
from pes_rl.runtime.progress import Progress

AGENTS = ("es", "nres", "pes", "truncated-es")
"""In the order of the measurement: what the gradient is known by comes first."""

TRACE_DECAYS = (0.0, 0.5, 0.8, 0.9, 1.0)
USUAL_DISCOUNT = 0.995
"""Of the critic that is measured where the run has none."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        env: Name of the environment.
        streams: Rollouts, in their order.
        num_pairs: Pairs P of an update.
        sigma: Standard deviation of the perturbations.
        own: What the run uses, if it is one of these estimators.
    """

    env: str
    streams: list[Stream]
    num_pairs: int
    sigma: float
    own: Setting | None


@dataclass(frozen=True)
class Signal:
    """Signal-to-noise ratios of estimators at a run's policy: which should it use now?

    For each estimator, truncation length K and trace decay lambda: norm of the mean
    gradient, noise of an update, ratios an update and a step, cosine with the gradient.
    """

    run: str
    """Folder of a run, or a policy's npz file."""
    which: Literal["best", "last"] = "last"
    """The last policy of the run, or the one with the best evaluation."""
    env: str | None = None
    """Environment of a policy file that is in no run folder."""
    agent: tuple[str, ...] = ()
    """Estimators: pes, nres, truncated-es, es; none takes all that can run."""
    truncation_length: tuple[int, ...] = ()
    """Unroll lengths K; none takes the run's, a quarter and four times of it."""
    trace_decay: tuple[float, ...] = ()
    """lambda of pes; none takes 0, 0.5, 0.8, 0.9, 1 and the run's."""
    critic_discount: tuple[float, ...] = ()
    """Discounts of critics, with each of which pes is measured as well; none takes the
    run's, or 0.995 where there are observations."""
    num_pairs: int | None = None
    """Antithetic pairs of an update; None takes the run's."""
    sigma: float | None = None
    """Standard deviation of the perturbations; None takes that of the run's end."""
    steps: int = 1_000_000
    """Environment steps of each rollout: one for es, and for each K one for nres, one
    for truncated-es and one for pes, which all lambda share."""
    num_chains: int = 64
    """Independent copies of a rollout, from whose differences intervals come."""
    reference: Literal["all", "pes", "nres", "es"] = "all"
    """Whose mean counts as the gradient; all takes the unbiased ones together."""
    min_cosine: float = 0.9
    """Least cosine with the gradient of a biased estimator that is recommended."""
    seed: int = 0
    """Seed of all randomness."""
    logdir: str | None = None
    """Folder of signal.csv, signal.txt and signal.png; None takes RUN/signal."""

    @property
    def folder(self) -> Path:
        """Where results are written."""
        if self.logdir is not None:
            return Path(self.logdir)
        return (find_run(Path(self.run)) or Path("runs")) / "signal"

    def measure(self) -> None:
        """Measure, print and write.

        Raises:
            ValueError: If the run cannot be read, or an option does not fit it.
        """
        self._check()
        subject = load_subject(self.run, self.which, self.env)
        plan = self._plan(subject)
        done: list[Measured] = []
        try:
            for measured in self._measure(subject, plan.streams):
                done = measured
        except KeyboardInterrupt:
            if done:
                self._report(plan, done)
            raise
        self._report(plan, done)

    def _measure(
        self, subject: TrainedSubject, streams: Sequence[Stream]
    ) -> Iterator[list[Measured]]:
        """Yields what is known so far of each stream, each time that it is more."""
        known: list[Measured] = []
        label = f"signal {subject.config.env}"
        with Progress(label, self.steps * len(streams), "steps") as progress:
            for number, stream in enumerate(streams):
                name = f"{stream.settings[0].agent} K {stream.length}"
                windows = measure(
                    subject.rollout,
                    subject.theta,
                    stream,
                    self.num_chains,
                    self.steps,
                    jax.random.fold_in(jax.random.key(self.seed), number),
                )
                shown = 0
                for measured in windows:
                    done = min(measured.steps, self.steps)
                    if 10 * done // self.steps > shown:
                        shown = 10 * done // self.steps
                        progress.update(number * self.steps + done, name)
                    yield [*known, measured]
                known.append(measured)

    def _check(self) -> None:
        for agent in self.agent:
            if agent not in AGENTS:
                raise ValueError(unknown_name("estimator here", agent, list(AGENTS)))
        for decay in self.trace_decay:
            check_trace_decay(decay)
        for discount in self.critic_discount:
            check_critic_discount(discount)
        for name, least in (("steps", 1), ("num_chains", 4)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name}={getattr(self, name)} must be at least {least}"
                )

    def _plan(self, subject: TrainedSubject) -> Plan:
        """What is measured, with the run's settings where the options have none."""
        config, rollout = subject.config, subject.rollout
        horizon = rollout.horizon
        assert horizon is not None
        default = make_config(config.env, "pes", env_kwargs=config.env_kwargs)
        pairs = self.num_pairs or config.num_pairs or default.num_pairs
        sigma = self.sigma or subject.sigma() or default.sigma
        length = config.truncation_length or default.truncation_length
        assert pairs is not None and sigma is not None and length is not None
        check_population(pairs, sigma)
        lengths = self.truncation_length or _around(length, horizon)
        for each in lengths:
            check_truncation_length(each, horizon)
        decays = self.trace_decay
        if not decays:
            own_decay = {config.trace_decay} if config.agent == "pes" else set()
            decays = tuple(sorted({*TRACE_DECAYS, *own_decay}))
        agents = [a for a in AGENTS if a in (self.agent or AGENTS)]
        discounts = self._critic_discounts(subject) if "pes" in agents else (None,)
        if not rollout.can_copy and "truncated-es" in agents:
            if self.agent:
                raise ValueError(
                    f"truncated-es copies states, and those of {config.env} cannot be "
                    "copied; leave it out of --agent"
                )
            agents.remove("truncated-es")
        by_agent: dict[str, list[Stream]] = {
            "es": [NRESStream(horizon, sigma, "es")],
            "nres": [NRESStream(k, sigma) for k in lengths],
            "pes": [PESStream(k, sigma, decays, discounts) for k in lengths],
            "truncated-es": [TruncatedESStream(k, sigma) for k in lengths],
        }
        streams = [stream for agent in agents for stream in by_agent[agent]]
        settings = [s for stream in streams for s in stream.settings]
        if not any(is_reference(s, self.reference) for s in settings):
            raise ValueError(
                f"no estimator that is measured gives the gradient (reference "
                f"{self.reference}); add es or nres to --agent, or 1 to --trace-decay"
            )
        own = _own_setting(config, horizon) if subject.folder else None
        return Plan(config.env, streams, pairs, sigma, own)

    def _critic_discounts(self, subject: TrainedSubject) -> tuple[float | None, ...]:
        """None for no critic, and the discounts of critics.

        Raises:
            ValueError: If critics are asked for where there can be none.
        """
        own = subject.config.critic_discount
        wanted = self.critic_discount or (() if own is None else (own,))
        try:
            make_critic(subject.rollout, subject.rollout.reset(jax.random.key(0), 1))
        except ValueError:  # There are no observations, or too long ones.
            if wanted:
                raise
            return (None,)
        return None, *(wanted or (USUAL_DISCOUNT,))

    def _report(self, plan: Plan, measured: list[Measured]) -> None:
        """Print and write what is known."""
        made = make_replicates(measured, plan.num_pairs, self.reference)
        known = estimates(made)
        verdict = decide(made, known, plan.own, self.min_cosine)
        conditions = f"{plan.env}, {plan.num_pairs} pairs, sigma {plan.sigma:g}"
        write_report(self.folder, known, verdict, conditions)


def _around(length: int, horizon: int) -> tuple[int, ...]:
    """K, a quarter and four times of it, where episodes are longer than those."""
    length = min(length, horizon)
    others = {k for k in (length // 4, 4 * length) if 0 < k < horizon}
    return tuple(sorted({length, *others}))


def _own_setting(config: TrainConfig, horizon: int) -> Setting | None:
    """What the run uses, if it is an estimator that is measured here."""
    if config.agent not in AGENTS:
        return None
    length = horizon if config.agent == "es" else config.truncation_length
    assert length is not None
    if config.agent != "pes":
        return Setting(config.agent, length)
    return Setting("pes", length, config.trace_decay, config.critic_discount)
