"""Check an environment for use here: `python -m pes_rl.check ENV`.

What the engine relies on is tried with random linear policies: the same key gives the
same episodes, the members of a pair meet the same randomness, states can be copied (or
it is said what then cannot be used), episodes end as declared, numbers are finite. A
Gymnasium environment is also given to Gymnasium's own checker; the shapes and dtypes of
an own environment in JAX are checked before anything runs.
"""

import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from gymnasium.utils.env_checker import check_env
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pes_rl.assembly.factories import make_environment, make_policy, make_rollout
from pes_rl.benchmarks.agreement import measure_agreement
from pes_rl.config.train_config import TrainConfig, make_config
from pes_rl.envs import DeviceRollout, Particles, PolicyProblem, Rollout, Segment
from pes_rl.envs.gymnasium.making import make_env
from pes_rl.envs.gymnasium.results import BrokenEnvironment, describe
from pes_rl.envs.names import NATIVE_NAMES
from pes_rl.runtime.command_line import finish, read_options, run_command
from pes_rl.runtime.waiting import waiting

Verdict = Literal["yes", "no", "note"]
Finding = tuple[str, Verdict, str]  # question, answer, what it means


@dataclass(frozen=True)
class CheckOptions:
    """Check that an environment does what training relies on."""

    env: tyro.conf.Positional[str]
    """Environment, as for pes_rl.train."""
    num_pairs: int = 4
    """Antithetic pairs to try it with."""
    horizon: int | None = None
    """Steps after which an episode is cut; None takes the environment's."""
    backend: str | None = None
    """Physics backend of a Brax environment, or of Playground's: jax or warp."""
    env_kwargs: str = "{}"
    """Keyword arguments of a gym:ID, brax:NAME, gymnax:NAME, playground:NAME or
    jax:PACKAGE:NAME environment, as a JSON object."""
    vectorization: Literal["auto", "sync", "async", "envpool"] = "auto"
    """How a gym:ID environment's simulations are stepped."""
    num_threads: int = 0
    """Threads of a native MuJoCo environment or of EnvPool, or worker processes; 0
    takes every CPU."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status is 1 if training could not rely on it."""
    options = read_options(CheckOptions, arguments, "check")
    return run_command(lambda: _check(options))


def _check(options: CheckOptions) -> int:
    if options.num_pairs < 1:
        raise ValueError(f"num_pairs={options.num_pairs} must be at least 1; use 4")
    config = make_config(
        options.env,
        "pes",
        policy="linear",
        horizon=options.horizon,
        backend=options.backend,
        num_threads=options.num_threads,
        vectorization=options.vectorization,
        env_kwargs=options.env_kwargs,
    )
    with waiting(f"trying {options.env}", output=sys.stderr):
        findings = [*_of_gymnasium(options), *_found(options, config)]
        if options.env in NATIVE_NAMES:
            findings.append(_agreement(options.env))
    table = Table("question", "answer", "", title=options.env)
    color = {"yes": "green", "no": "red", "note": "yellow"}
    for question, verdict, meaning in findings:
        answer = f"[{color[verdict]}]{verdict}[/]"
        table.add_row(question, answer, escape(meaning))
    Console().print(table)
    return int(any(verdict == "no" for _, verdict, _ in findings))


def _found(options: CheckOptions, config: TrainConfig) -> Iterator[Finding]:
    """The findings of `check`; an environment that breaks ends them with one more."""
    question = "every reset and step returns what Gymnasium's API says"
    rollout, num_parameters = _parts(config)
    try:
        yield from check(rollout, num_parameters, options.num_pairs)
    except BrokenEnvironment as error:
        yield question, "no", str(error)
    else:
        if options.env.startswith("gym:"):
            yield question, "yes", ""


def _of_gymnasium(options: CheckOptions) -> Iterator[Finding]:
    """What Gymnasium's own checker says of a gym:ID environment."""
    if not options.env.startswith("gym:") or options.vectorization == "envpool":
        return
    question = "Gymnasium's check_env accepts it"
    task, kwargs = options.env.removeprefix("gym:"), json.loads(options.env_kwargs)
    env = make_env(task, kwargs)
    failure = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True)
        except (Exception, SystemExit) as error:
            failure = _plain(describe(error))
    env.close()
    if failure is not None:
        yield question, "no", failure
    elif not caught:
        yield question, "yes", ""
    for text in dict.fromkeys(_plain(str(warning.message)) for warning in caught):
        yield question, "note", text


def _plain(text: str) -> str:
    """Without the terminal colors of Gymnasium's warnings."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).removeprefix("WARN: ").strip()


def _parts(config: TrainConfig) -> tuple[Rollout, int]:
    """The rollout of linear policies, jitted on a device, and their size D."""
    environment = make_environment(config, config.env)
    policy = make_policy(config, environment)
    return make_rollout(config, environment, policy), policy.num_parameters


def check(rollout: Rollout, num_parameters: int, num_pairs: int) -> Iterator[Finding]:
    """Try what training relies on.

    Args:
        rollout: The rollout of a policy.
        num_parameters: D of the policy.
        num_pairs: Pairs P to try it with.
    """
    horizon = rollout.horizon
    assert horizon is not None  # make_rollout refuses an environment without one
    size = (2 * num_pairs, num_parameters)
    thetas = 0.3 * jax.random.normal(jax.random.key(1), size)
    reset, unroll = rollout.reset, rollout.unroll
    if rollout.on_device:
        reset = jax.jit(reset, static_argnums=1)
        unroll = jax.jit(unroll, static_argnums=2)

    def play(thetas: jax.Array) -> tuple[Particles, Segment]:
        return unroll(reset(jax.random.key(0), num_pairs), thetas, horizon)

    start = time.perf_counter()
    after, segment = jax.block_until_ready(play(thetas))
    compiled = time.perf_counter() - start
    _, again = play(thetas)
    yield _finding(
        "the same key gives the same episodes",
        _same(segment, again),
        "",
        "seeds do not decide the run, and pairs do not share their randomness",
    )
    _, alike = play(jnp.broadcast_to(thetas[:1], thetas.shape))
    members = np.asarray(alike.loss).reshape(horizon, num_pairs, 2)
    yield _finding(
        "the members of a pair meet the same randomness",
        np.array_equal(members[..., 0], members[..., 1]),
        "",
        "reset must take all of an episode's randomness from its seed",
    )
    yield _copies(rollout, unroll, after, thetas)
    yield from _episodes(segment, horizon)
    if isinstance(rollout, DeviceRollout):
        yield from _of_device(rollout, reset, num_pairs)
        yield "seconds to compile and play an episode", "note", f"{compiled:.1f}"
    yield "engine, steps a second", "note", f"{_speed(rollout, unroll, thetas):,.0f}"


def _agreement(env: str) -> Finding:
    agreement = measure_agreement(env)
    holds = agreement.difference < 1e-9 and agreement.ends_agree
    found = f"to {agreement.difference:.0e} over {agreement.steps} steps"
    return _finding("it steps as Gymnasium's environment", holds, found, found)


def _finding(question: str, holds: bool, good: str, bad: str) -> Finding:
    return question, "yes" if holds else "no", good if holds else bad


def _copies(
    rollout: Rollout, unroll: Callable[..., Any], after: Particles, thetas: jax.Array
) -> Finding:
    question = "states can be copied, and copies step as the originals do"
    if not rollout.can_copy:
        meaning = "no copies: use pes, nres or es; --resume begins new episodes"
        return question, "note", meaning
    order = np.arange(len(thetas))[::-1]
    _, copied = unroll(rollout.take(after, order), thetas[order], 10)
    _, original = unroll(after, thetas, 10)
    same = np.array_equal(np.asarray(copied.loss), np.asarray(original.loss)[:, order])
    return _finding(question, same, "", "its state is more than what is copied")


def _of_device(
    rollout: DeviceRollout, reset: Callable[..., Any], num_pairs: int
) -> Iterator[Finding]:
    """What is seen of an environment written in JAX besides its episodes."""
    problem = rollout.problem
    assert isinstance(problem, PolicyProblem)
    environment = problem.environment
    low, high = (
        np.unique(np.asarray(bound)).tolist()
        for bound in (environment.action_low, environment.action_high)
    )
    yield (
        "observations and actions",
        "note",
        f"{environment.observation_size} numbers; {np.size(environment.action_low)} "
        f"from {', '.join(map(str, low))} to {', '.join(map(str, high))}",
    )
    _, first = reset(jax.random.key(0), max(num_pairs, 2)).state
    differ = len(np.unique(np.asarray(first), axis=0)) > 1
    yield (
        "episodes begin in different states",
        "yes" if differ else "note",
        "" if differ else "all first observations are alike; reset(key) uses no key",
    )


def _episodes(segment: Segment, horizon: int) -> Iterator[Finding]:
    ended, diverged = np.asarray(segment.ended), np.asarray(segment.diverged)
    first = np.where(ended.any(0), ended.argmax(0) + 1, horizon + 1)
    early = np.mean(first < horizon)
    yield _finding(
        f"episodes end by step {horizon}",
        bool(ended.any(0).all()),
        f"{early:.0%} of random ones earlier, after {first.min()} steps at least",
        "the time limit does not cut them",
    )
    yield _finding(
        "observations and rewards are finite",
        not diverged.any(),
        "",
        f"{diverged.sum()} episodes diverged; each ends at --diverged-loss",
    )


def _same(one: Segment, other: Segment) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _speed(rollout: Rollout, unroll: Callable[..., Any], thetas: jax.Array) -> float:
    particles = rollout.reset(jax.random.key(2), len(thetas) // 2)
    steps = min(rollout.horizon or 100, 100)
    particles, _ = unroll(particles, thetas, steps)  # compiled now
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 1.0:
        particles, segment = unroll(particles, thetas, steps)
        jax.block_until_ready(segment.loss)
        done += steps * len(thetas)
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    finish(main())
