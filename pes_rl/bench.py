"""Throughput as ratios in one run: `python -m pes_rl.bench --env swimmer`.

A machine's speed varies from minute to minute, so only engines measured side by side
compare. Each is warmed up first (compiled, its processes started); then all are
measured in turn, round after round, so that whatever else the machine does hits each
alike. Steps/s are medians over the rounds, ratios are medians of the rounds' ratios.

A native MuJoCo task is measured against:

* `mujoco.batch open loop`, the physics alone: the states that the closed loop starts
  from, and the controls that its policies gave there, replayed. Both step the same
  trajectories, but for the few episodes that end on the way.
* `gymnasium sync` and `async`: Gymnasium's vector environments of the task on random
  actions drawn beforehand; async with a process for each environment, and again with
  one for each thread. The fastest of them is the one to beat.
* `envpool`, where it is installed: the same actions, as many threads.

A Brax environment is measured against `bare physics scan`: a jitted `lax.scan` over the
vmapped step, from the closed loop's states on its actions; no policy, no episodes.
"""

import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table

from pes_rl.agents import Policy
from pes_rl.envs import DeviceRollout, HostRollout, PolicyProblem, make
from pes_rl.envs.native_mujoco import MujocoEnvironment
from pes_rl.progress import Progress

STEPS = 100
"""Steps of every environment in one call of an engine: a usual truncation length."""


@dataclass(frozen=True)
class BenchConfig:
    """Settings of a benchmark."""

    env: str = "swimmer"
    """Environment: a native MuJoCo task, or brax:NAME."""
    num_particles: int = 64
    """Environments stepped together; even, as particles come in pairs."""
    num_threads: int = 0
    """Threads (or processes) of the host engines; 0 takes one for every CPU."""
    seconds: float = 1.0
    """Least time of one measurement of one engine."""
    rounds: int = 5
    """Measurements of each engine."""
    backend: str | None = None
    """Physics backend of a Brax environment."""
    json: Path | None = None
    """File to write the rows to, as JSON."""


@dataclass(frozen=True)
class Engine:
    """Something that steps environments.

    Attributes:
        name: What the table calls it.
        particles: Environments that it steps together.
        threads: Threads or processes that step them; None where XLA decides.
        run: Takes `STEPS` steps in every environment, and returns when they are done.
    """

    name: str
    particles: int
    threads: int | None
    run: Callable[[], object]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    config = tyro.cli(BenchConfig, args=arguments, prog="python -m pes_rl.bench")
    with ExitStack() as stack:
        try:
            check(config)
            engines = list(make_engines(config, stack))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        rates = measure(engines, config)
    _print_table(config.env, engines, rates)
    if config.json is not None:
        rows = make_rows(config.env, engines, rates)
        config.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def check(config: BenchConfig) -> None:
    """Refuse, before anything is measured, what would fail or mean nothing.

    Raises:
        ValueError: If a number is out of range, or the JSON file cannot be written.
    """
    if config.num_particles < 2 or config.num_particles % 2:
        raise ValueError(
            f"num_particles={config.num_particles} must be even and at least 2; use 64"
        )
    if not config.seconds > 0 or config.rounds < 1:
        raise ValueError(
            f"seconds={config.seconds} must be above 0 and rounds={config.rounds} at "
            "least 1; use 1.0 and 5"
        )
    try:
        if config.json is not None:
            config.json.open("a").close()
    except OSError as error:
        raise ValueError(
            f"json={str(config.json)!r} cannot be written ({error.strerror}); name a "
            "file in a folder that exists and is yours"
        ) from error


def make_engines(config: BenchConfig, stack: ExitStack) -> Iterator[Engine]:
    """The engines to compare, that of `pes_rl` first; `stack` will close them.

    Raises:
        ValueError: If the environment is unknown, or nothing else can step it.
    """
    threads = config.num_threads or os.cpu_count() or 1
    environment = make(config.env, num_threads=threads, backend=config.backend)
    policy = Policy(
        environment.observation_size,
        tuple(np.asarray(environment.action_low).tolist()),
        tuple(np.asarray(environment.action_high).tolist()),
    )
    # Antithetic pairs of modest size, as in training.
    shape = (config.num_particles // 2, 1, policy.num_parameters)
    perturbation = 0.1 * jax.random.normal(jax.random.key(0), shape)
    thetas = jnp.concatenate([perturbation, -perturbation], axis=1)
    thetas = thetas.reshape(config.num_particles, -1)
    if isinstance(environment, MujocoEnvironment):
        yield from _native_engines(environment, policy.act, thetas, threads)
        yield from _peer_engines(environment, len(thetas), threads, stack)
    elif environment.on_device:
        yield from _device_engines(environment, policy.act, thetas)
    else:
        raise ValueError(
            f"env={config.env!r} has nothing to be compared with; use swimmer or "
            "another native MuJoCo task, or brax:NAME"
        )


def measure(engines: list[Engine], config: BenchConfig) -> np.ndarray:
    """Steps/s of each engine in each round. shape=(rounds, engines)."""
    rates = np.zeros((config.rounds + 1, len(engines)))
    with Progress(f"bench {config.env}", rates.size, "measurements") as progress:
        for done in range(rates.size):
            k, i = divmod(done, len(engines))
            rates[k, i] = _rate(engines[i], config.seconds if k > 0 else 0)
            note = f"{rates[k, i]:,.0f} steps/s" if k > 0 else "warm"
            progress.update(done + 1, f"{engines[i].name}: {note}")
    return rates[1:]


def make_rows(
    env: str, engines: list[Engine], rates: np.ndarray
) -> list[dict[str, Any]]:
    """The rows for programs, one an engine."""
    return [
        {
            "engine": engine.name,
            "env": env,
            "particles": engine.particles,
            "threads": engine.threads,
            "steps_per_second": round(speed, 1),
        }
        for engine, speed in zip(engines, np.median(rates, 0).tolist(), strict=True)
    ]


def _native_engines(
    environment: MujocoEnvironment, act: Callable, thetas: jax.Array, threads: int
) -> Iterator[Engine]:
    rollout = HostRollout(environment, act, environment.horizon)
    particles = _under_way(rollout, rollout.unroll, thetas)
    controls: list[np.ndarray] = []

    def act_and_record(thetas: np.ndarray, observations: np.ndarray) -> np.ndarray:
        controls.append(act(thetas, observations))
        return controls[-1]

    replace(rollout, act=act_and_record).unroll(particles, thetas, STEPS)
    batch = Batch(environment.model, len(thetas), nthread=threads)
    ctrl = batch.bind("ctrl")

    def open_loop() -> None:
        batch.state[:] = particles.state.simulation
        for control in controls:
            ctrl[:] = control
            batch.step(nstep=environment.task.frame_skip)

    def closed_loop() -> None:
        rollout.unroll(particles, thetas, STEPS)

    yield Engine("pes_rl", len(thetas), threads, closed_loop)
    yield Engine("mujoco.batch open loop", len(thetas), threads, open_loop)


def _device_engines(
    environment: Any, act: Callable, thetas: jax.Array
) -> Iterator[Engine]:
    rollout = DeviceRollout(PolicyProblem(environment, act), environment.horizon)
    unroll = jax.jit(rollout.unroll, static_argnums=2)
    particles = _under_way(rollout, unroll, thetas)
    step = jax.vmap(environment.step)

    def act_and_step(state: Any, _: None) -> tuple[Any, jax.Array]:
        actions = jax.vmap(act)(thetas, state[1])
        return step(state[0], actions)[:2], actions

    record = jax.jit(lambda state: jax.lax.scan(act_and_step, state, length=STEPS)[1])
    actions = record(particles.state)

    @jax.jit
    def scan(state: Any, actions: jax.Array) -> Any:
        return jax.lax.scan(lambda s, a: (step(s, a)[0], None), state, actions)[0]

    def closed_loop() -> None:
        jax.block_until_ready(unroll(particles, thetas, STEPS))

    def open_loop() -> None:
        jax.block_until_ready(scan(particles.state[0], actions))

    yield Engine("pes_rl", len(thetas), None, closed_loop)
    yield Engine("bare physics scan", len(thetas), None, open_loop)


def _under_way(rollout: Any, unroll: Callable, thetas: jax.Array) -> Any:
    """Particles after one unroll; staggered, so that episodes end as in training."""
    first = rollout.reset(jax.random.key(1), len(thetas) // 2, stagger=True)
    return unroll(first, thetas, STEPS)[0]


def _peer_engines(
    environment: MujocoEnvironment, num_particles: int, threads: int, stack: ExitStack
) -> Iterator[Engine]:
    task = environment.task.gymnasium_id
    # A fork of this process would inherit JAX's locks without its threads; a fork
    # server that has done the imports starts clean processes, and quickly.
    multiprocessing.set_forkserver_preload(["pes_rl.bench", "gymnasium.envs.mujoco"])
    for mode, num_envs, processes in (
        ("sync", num_particles, 1),
        ("async", num_particles, num_particles),
        ("async", threads, threads),
    ):
        keywords = {"context": "forkserver"} if mode == "async" else {}
        envs = gymnasium.make_vec(task, num_envs, mode, vector_kwargs=keywords)
        run = _stepping(envs, environment, num_envs, stack)
        yield Engine(f"gymnasium {mode}", num_envs, processes, run)
    try:
        envpool = importlib.import_module("envpool")
    except ImportError:
        return
    sizes = {"num_envs": num_particles, "num_threads": threads}
    envs = envpool.make(task, "gymnasium", **sizes)
    run = _stepping(envs, environment, num_particles, stack)
    yield Engine("envpool", num_particles, threads, run)


def _stepping(
    envs: Any, environment: MujocoEnvironment, num_envs: int, stack: ExitStack
) -> Callable[[], None]:
    stack.callback(envs.close)
    envs.reset()
    low, high = environment.action_low, environment.action_high
    actions = np.random.default_rng(0).uniform(low, high, (STEPS, num_envs, len(low)))
    actions = actions.astype(envs.action_space.dtype)

    def run() -> None:
        for action in actions:
            envs.step(action)

    return run


def _rate(engine: Engine, seconds: float) -> float:
    """Steps per second of an engine in runs of at least `seconds`; one run at least."""
    steps, start = 0, time.perf_counter()
    while True:
        engine.run()
        steps += STEPS * engine.particles
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return steps / elapsed


def _print_table(env: str, engines: list[Engine], rates: np.ndarray) -> None:
    table = Table("engine", title=f"{env}, environment steps per second")
    for column in ("particles", "threads", "steps/s", "pes_rl is"):
        table.add_column(column, justify="right")
    speeds, ratios = np.median(rates, 0), np.median(rates[:, :1] / rates, 0)
    for engine, speed, ratio in zip(engines, speeds, ratios, strict=True):
        sizes = (str(engine.particles), str(engine.threads or "-"))
        table.add_row(engine.name, *sizes, f"{speed:,.0f}", f"{ratio:.2f} times")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
