"""Do control variates pay? Signal and noise of PES with critics, at fixed policies.

    python results/critics/policies.py
    python results/critics/run.py [--tasks hopper ...] [--steps 2000000] [--out FOLDER]
    python results/critics/run.py --runs RUN RUN/policy/best.npz ...

writes FOLDER/cases/CASE.csv after each rollout of a case (a policy), and the tables of
FOLDER/README.md. Rollouts that are done are kept in --cache, and a run that was stopped
goes on from there; delete them after a change of the code. Two commands with different
--tasks can run side by side.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from critic_report import case_rows, write_tables
from critic_streams import CriticStream, TruncatedCriticStream
from critic_values import Critics, fit, record
from policies import BUDGETS, FOLDER, STAGES

from pes_rl.analysis.output import write_csv
from pes_rl.analysis.signal_nres import NRESStream
from pes_rl.analysis.signal_statistics import estimates, make_replicates
from pes_rl.analysis.signal_stream import Stream
from pes_rl.analysis.signal_sums import Measured, Sums, measure
from pes_rl.analysis.trained_subject import TrainedSubject, load_subject
from pes_rl.config.train_config import make_config
from pes_rl.run_folder.provenance import recording_maker
from pes_rl.runtime.progress import Progress

HERE = Path(__file__).parent
LENGTHS = (100, 50, 20, 10)
TRACE_DECAYS = (0.0, 0.5, 0.8, 0.9, 1.0)
AGENTS = ("nres", "pes", "truncated-es")
NRES_TIMES = 4
"""Its rollout is so many times as long: it is one for all K, and gives the gradient."""


@dataclass(frozen=True)
class Case:
    """A policy at which estimators are measured.

    Attributes:
        name: TASK-STAGE, or a name of the run.
        path: Run folder or npz file.
        env: Environment of a policy that is in no run; else None.
        sigma: Of the perturbations; None takes that of the run's end.
    """

    name: str
    path: str
    env: str | None = None
    sigma: float | None = None

    @cached_property
    def subject(self) -> TrainedSubject:
        """The task at this policy, in one thread."""
        return load_subject(self.path, "last", self.env)


@dataclass(frozen=True)
class Size:
    """How much is simulated.

    Attributes:
        steps: Environment steps of a rollout of PES or truncated ES.
        fit_steps: Those on which the critics are fitted.
        chains: Independent copies of a rollout, with whose differences intervals are.
    """

    steps: int
    fit_steps: int
    chains: int


def listed_cases(
    folder: Path, tasks: Sequence[str], stages: Sequence[str]
) -> list[Case]:
    """The policies that policies.py wrote into the folder, stage by stage."""
    cases = []
    for stage in stages:
        for task in tasks:
            path = folder / f"{task}-{stage}.npz"
            if path.exists():
                saved = json.loads((folder / f"{task}.json").read_text())[stage]
                cases.append(Case(path.stem, str(path), task, saved["sigma"]))
    return cases


def run_cases(runs: Sequence[str]) -> list[Case]:
    """The policies of run folders, or npz files of them."""
    cases = []
    for run in runs:
        path = Path(run)
        folder, stage = path, "last"
        if path.suffix == ".npz":
            folder, stage = path.parents[1], path.stem
        cases.append(Case(f"{folder.name}-{stage}", run))
    return cases


class Measurement:
    """The rollouts of one case.

    Args:
        case: The policy.
        lengths: Truncation lengths K.
        size: How much is simulated.
        cache: Folder of what is done.
    """

    def __init__(
        self, case: Case, lengths: Sequence[int], size: Size, cache: Path
    ) -> None:
        self.case, self.size, self.cache = case, size, cache
        subject = case.subject
        self.horizon = subject.rollout.horizon
        assert self.horizon is not None
        default = make_config(subject.config.env, "pes")
        sigma, num_pairs = default.sigma, default.num_pairs
        assert sigma is not None and num_pairs is not None
        self.sigma = case.sigma or subject.sigma() or sigma
        self.num_pairs = num_pairs
        self.lengths = [k for k in lengths if k <= self.horizon]

    def run(self) -> Iterator[tuple[list[Measured], dict[int, Critics]]]:
        """Yield all that is known after each rollout, and the critics by K."""
        known: list[Measured] = []
        critics: dict[int, Critics] = {}
        both = [(agent, k) for k in self.lengths for agent in ("pes", "truncated-es")]
        # Over whole episodes noise reuse is the same for every K.
        parts = [("nres", self.lengths[0]), *both]
        done, steps = 0, self.size.steps
        fits = len(self.lengths) * self.size.fit_steps
        total = (len(both) + NRES_TIMES) * steps + fits
        with Progress(self.case.name, total, "steps") as progress:
            for agent, length in parts:
                key = jax.random.fold_in(jax.random.key(AGENTS.index(agent)), length)
                if agent == "pes":
                    critics[length] = self._critics(length, key)
                    done += self.size.fit_steps
                stream = self._stream(agent, length, critics)
                part = NRES_TIMES * steps if agent == "nres" else steps
                known.append(self._measured(stream, agent, part, key))
                done += part
                progress.update(done, f"{agent} K {length}")
                yield known, critics

    def _critics(self, length: int, key: jax.Array) -> Critics:
        subject, size = self.case.subject, self.size
        path = self._path("critics", length)
        if path.exists():
            with np.load(path, allow_pickle=False) as file:
                values: dict[str, Any] = {f.name: file[f.name] for f in fields(Critics)}
            for name in ("names", "explained"):
                values[name] = tuple(values[name].tolist())
            return Critics(**{**values, "horizon": self.horizon, "length": length})
        samples = record(
            subject.rollout,
            subject.theta,
            length,
            self.sigma,
            size.chains,
            size.fit_steps,
            jax.random.fold_in(key, 1),
        )
        assert self.horizon is not None
        fitted = fit(samples, self.horizon, length)
        _save(path, **vars(fitted))
        return fitted

    def _stream(self, agent: str, length: int, critics: dict[int, Critics]) -> Stream:
        if agent == "nres":
            return NRESStream(length, self.sigma)
        fitted = critics[length]
        if agent == "truncated-es":
            return TruncatedCriticStream(length, self.sigma, fitted.names, fitted)
        return CriticStream(
            length, self.sigma, TRACE_DECAYS, critics=fitted.names, values=fitted
        )

    def _measured(
        self, stream: Stream, agent: str, steps: int, key: jax.Array
    ) -> Measured:
        path = self._path(agent, stream.length)
        if path.exists():
            with np.load(path) as file:
                sums = Sums(**{f.name: file[f.name] for f in fields(Sums)})
                counts = int(file["updates"]), int(file["steps"])
            return Measured(stream.settings, stream.shares_states, *counts, sums)
        if isinstance(stream, TruncatedCriticStream):  # see there
            steps *= len(stream.critics)
        subject = self.case.subject
        arguments = subject.rollout, subject.theta, stream, self.size.chains, steps
        *_, measured = measure(*arguments, jax.random.fold_in(key, 0))
        counts = {"updates": measured.updates, "steps": measured.steps}
        _save(path, **vars(measured.means), **counts)
        return measured

    def _path(self, agent: str, length: int) -> Path:
        size = self.size
        folder = f"{self.case.name}-{size.steps}-{size.fit_steps}-{size.chains}"
        return self.cache / folder / f"{agent}-{length}.npz"


def _save(path: Path, **arrays: Any) -> None:
    """Write an npz file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.rename(path)


def main() -> None:
    """Measure every case, and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--policies", type=Path, default=FOLDER)
    parser.add_argument("--runs", nargs="+", default=[], help="in place of the tasks")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--fit-steps", type=int, default=500_000)
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--cache", type=Path, default=HERE.parents[1] / "runs/critics")
    options = parser.parse_args()
    size = Size(options.steps, options.fit_steps, options.chains)
    cases = (
        run_cases(options.runs)
        if options.runs
        else listed_cases(options.policies, options.tasks, options.stages)
    )
    if not cases:
        raise SystemExit(f"no policies in {options.policies}; run policies.py first")
    folder = options.out / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    with recording_maker(folder):
        for case in cases:
            measurement = Measurement(case, options.lengths, size, options.cache)
            for known, critics in measurement.run():
                made = make_replicates(known, measurement.num_pairs)
                rows = case_rows(made, estimates(made), critics, size.steps)
                write_csv(folder / f"{case.name}.csv", rows)
            write_tables(options.out)


if __name__ == "__main__":
    main()
