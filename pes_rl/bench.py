"""Throughput as ratios in one run: `python -m pes_rl.bench --env swimmer`.

A machine's speed varies from minute to minute, so only engines measured side by side
compare. Each is warmed up first (compiled, its processes started); then all are
measured in turn, round after round, so that whatever else the machine does hits each
alike. Steps/s are medians over the rounds, ratios are medians of the rounds' ratios.

`pes_rl` is the rollout that training runs, policy and bookkeeping included. On a
device it is compared with `bare physics scan`, a jitted `lax.scan` over the vmapped
step from the same states on the same actions; one in closed form (`jax:NAME`) also with
the same rollout of native MuJoCo's and of Brax's task of that name, and with
`MJX physics scan`, the bare physics of MuJoCo's own JAX engine. `compile` is the first
run's time less that of the next. A native MuJoCo task is compared with:

* `mujoco.batch open loop`, the physics alone as the engine runs it, from the same
  states on the same controls; only the few episodes that end on the way make the
  trajectories differ.
* `gymnasium sync` and `async`, Gymnasium's vector environments on random actions drawn
  beforehand; async with a process for each environment, and again with as many of each
  as there are threads. The fastest of them is the one to beat.
* `envpool`, where it is installed, on such actions too.
"""

import importlib
import io
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import lax
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table

from pes_rl.assembly import make_policy, make_rollout
from pes_rl.config import make_config
from pes_rl.envs.mujoco_tasks import load_model
from pes_rl.envs.native_mujoco import profiler_off
from pes_rl.envs.registry import environment_names, make, unknown_name
from pes_rl.progress import Progress

STEPS = 100
"""Steps of every environment in one run of an engine: a usual truncation length."""

Run = Callable[[], object]  # takes those steps; returns when they are done


@dataclass(frozen=True)
class BenchConfig:
    """Measure throughput against other engines, side by side."""

    env: str = "swimmer"
    """Environment: a native MuJoCo task, jax:NAME or brax:NAME."""
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
    """File to write the rows to."""


@dataclass(frozen=True)
class Row:
    """What is known of one engine; `threads` is None where XLA decides."""

    engine: str
    env: str
    particles: int
    threads: int | None
    steps_per_second: float = 0.0
    compile_seconds: float = 0.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    config = tyro.cli(BenchConfig, args=arguments, prog="python -m pes_rl.bench")
    with ExitStack() as stack:
        try:
            _check(config)
            engines = list(_engines(config, stack))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        compile_seconds, rates = _measure(engines, config)
    speeds = np.median(rates, axis=0).tolist()
    rows = [
        replace(row, steps_per_second=speed, compile_seconds=seconds)
        for (row, _), speed, seconds in zip(
            engines, speeds, compile_seconds, strict=True
        )
    ]
    _print_table(rows, np.median(rates[:, :1] / rates, axis=0))
    if config.json is not None:
        config.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))
    return 0


def _check(config: BenchConfig) -> None:
    known = environment_names()
    if config.env not in known:
        raise ValueError(unknown_name("environment", config.env, known))
    if config.num_particles < 2 or config.num_particles % 2:
        raise ValueError(f"num_particles={config.num_particles} is not even; use 64")
    for name in ("seconds", "rounds"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name}={getattr(config, name)} must be above 0; use 1")
    try:
        if config.json is not None:
            config.json.open("a").close()
    except OSError as error:
        raise ValueError(f"cannot write json={str(config.json)!r}: {error}") from error


def _measure(
    engines: list[tuple[Row, Run]], config: BenchConfig
) -> tuple[list[float], np.ndarray]:
    """Seconds of compilation of each engine, and steps/s in each round [rounds, E]."""
    compile_seconds = [_seconds(run) - _seconds(run) for _, run in engines]
    rates = np.zeros((config.rounds, len(engines)))
    with Progress(f"bench {config.env}", rates.size, "measurements") as progress:
        for done, (k, i) in enumerate(np.ndindex(rates.shape), start=1):
            row, run = engines[i]
            steps, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < config.seconds:
                run()
                steps += STEPS * row.particles
            rates[k, i] = steps / elapsed
            progress.update(done, f"{row.engine}: {rates[k, i]:,.0f} steps/s")
    return compile_seconds, rates


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Closed:
    """A closed loop under way: the rollout that training runs, and what it runs on."""

    row: Row
    rollout: Any
    particles: Any
    thetas: jax.Array
    unroll: Callable[..., Any]

    def run(self) -> object:
        return jax.block_until_ready(self.unroll(self.particles, self.thetas, STEPS))


def _closed_loop(config: BenchConfig, env: str, engine: str) -> Closed:
    threads, pairs = _threads(config), config.num_particles // 2
    backend = config.backend if env == config.env else None
    options: Any = {"num_threads": threads, "backend": backend}
    training = make_config(env, "pes", **options)
    environment: Any = make(env, **options)
    policy = make_policy(training, environment)
    rollout: Any = make_rollout(training, environment, policy.act)
    size = policy.num_parameters
    perturbation = 0.1 * jax.random.normal(jax.random.key(0), (pairs, size))
    thetas = jnp.stack([perturbation, -perturbation], 1).reshape(2 * pairs, size)
    reset, unroll = rollout.reset, rollout.unroll
    if rollout.on_device:
        reset = jax.jit(reset, static_argnums=1, static_argnames="stagger")
        unroll = jax.jit(unroll, static_argnums=2)
    # Staggered and under way, so that episodes end as often as in training.
    particles = reset(jax.random.key(1), pairs, stagger=True)
    particles, _ = rollout.unroll(particles, thetas, STEPS)
    row = Row(engine, env, 2 * pairs, None if rollout.on_device else threads)
    return Closed(row, rollout, particles, thetas, unroll)


def _threads(config: BenchConfig) -> int:
    return config.num_threads or os.cpu_count() or 1


def _engines(config: BenchConfig, stack: ExitStack) -> Iterator[tuple[Row, Run]]:
    """The engines to compare, that of `pes_rl` first; `stack` will close them."""
    ours = _closed_loop(config, config.env, "pes_rl")
    yield ours.row, ours.run
    rollout, particles, thetas = ours.rollout, ours.particles, ours.thetas
    if not rollout.on_device:
        run = _open_loop(rollout, particles, thetas, _threads(config))
        yield replace(ours.row, engine="mujoco.batch open loop"), run
        task_id = rollout.environment.task.gymnasium_id
        for peer, envs in _peers(task_id, ours.row, _threads(config)):
            stack.callback(envs.close)
            yield peer, _random_steps(envs, peer.particles)
        return
    run = _scan(rollout, particles, thetas)
    yield replace(ours.row, engine="bare physics scan"), run
    family, _, task = config.env.partition(":")
    if family == "jax":
        for env, engine in ((task, "native MuJoCo"), (f"brax:{task}", "Brax")):
            other = _closed_loop(config, env, f"pes_rl on {engine}")
            yield other.row, other.run
        run = _mjx_scan(rollout.problem.environment.task, config.num_particles)
        yield replace(ours.row, engine="MJX physics scan"), run


def _mjx_scan(task: Any, num_particles: int) -> Run:
    with redirect_stdout(io.StringIO()):  # That it has no Warp.
        mjx = importlib.import_module("mujoco.mjx")
    model = mjx.put_model(load_model(task))
    data = jax.vmap(lambda _: mjx.make_data(model))(jnp.arange(num_particles))
    shape = (STEPS, num_particles, model.nu)
    controls = jax.random.uniform(jax.random.key(0), shape, minval=-1, maxval=1)

    def step(data: Any, control: jax.Array) -> tuple[Any, None]:
        data = data.replace(ctrl=control)
        return lax.fori_loop(0, task.frame_skip, lambda _, d: one(model, d), data), None

    one = jax.vmap(mjx.step, in_axes=(None, 0))
    scan = jax.jit(lambda data: lax.scan(step, data, controls)[0].qpos)
    return lambda: jax.block_until_ready(scan(data))


def _open_loop(rollout: Any, particles: Any, thetas: jax.Array, threads: int) -> Run:
    environment, controls = rollout.environment, []

    def act_and_record(thetas: np.ndarray, observations: np.ndarray) -> np.ndarray:
        controls.append(rollout.act(thetas, observations))
        return controls[-1]

    replace(rollout, act=act_and_record).unroll(particles, thetas, STEPS)
    batch = Batch(environment.model, len(thetas), nthread=threads)
    ctrl = batch.bind("ctrl")

    rows, _ = particles.state.simulation

    def run() -> None:
        batch.state[:] = rows
        for control in controls:
            ctrl[:] = control
            with profiler_off():
                batch.step(nstep=environment.task.frame_skip)

    return run


def _scan(rollout: Any, particles: Any, thetas: jax.Array) -> Run:
    step = jax.vmap(rollout.problem.environment.step)

    def act_and_step(state: Any, _: None) -> tuple[Any, jax.Array]:
        actions = jax.vmap(rollout.problem.act)(thetas, state[1])
        return step(state[0], actions)[:2], actions

    record = jax.jit(lambda state: jax.lax.scan(act_and_step, state, length=STEPS)[1])
    actions = record(particles.state)

    @jax.jit
    def scan(simulation: Any, actions: jax.Array) -> Any:
        return jax.lax.scan(lambda s, a: (step(s, a)[0], None), simulation, actions)[0]

    return lambda: jax.block_until_ready(scan(particles.state[0], actions))


def _peers(task_id: str, row: Row, threads: int) -> Iterator[tuple[Row, Any]]:
    n = row.particles
    envs = gymnasium.make_vec(task_id, n, "sync")
    yield replace(row, engine="gymnasium sync", threads=1), envs
    # A fork of this process would inherit JAX's locks without its threads; a fork
    # server starts clean processes, and quickly once it has done their imports.
    imports = ["tyro", "pes_rl.assembly", "pes_rl.progress", "gymnasium.envs.mujoco"]
    multiprocessing.set_forkserver_preload(imports)
    kind = {"context": "forkserver"}
    for m in sorted({n, threads}):
        envs = gymnasium.make_vec(task_id, m, "async", vector_kwargs=kind)
        yield replace(row, engine="gymnasium async", particles=m, threads=m), envs
    try:
        envpool: Any = importlib.import_module("envpool")
    except ImportError:
        return
    envs = envpool.make(task_id, "gymnasium", num_envs=n, num_threads=threads)
    yield replace(row, engine="envpool"), envs


def _random_steps(envs: Any, num_envs: int) -> Run:
    # Gymnasium's action space is that of the batch, EnvPool's that of one environment.
    space = getattr(envs, "single_action_space", envs.action_space)
    draw, shape = np.random.default_rng(0).uniform, (STEPS, num_envs, *space.shape)
    actions = draw(space.low, space.high, shape).astype(space.dtype)
    envs.reset()

    def run() -> None:
        for action in actions:
            envs.step(action)

    return run


def _print_table(rows: list[Row], ratios: np.ndarray) -> None:
    table = Table("engine", title=f"{rows[0].env}, environment steps per second")
    for column in ("particles", "threads", "compile", "steps/s", "pes_rl is"):
        table.add_column(column, justify="right")
    for row, ratio in zip(rows, ratios, strict=True):
        speed = f"{row.steps_per_second:,.0f}"
        on_device = row.threads is None
        compiled = f"{row.compile_seconds:.1f} s" if on_device else "-"
        sizes = str(row.particles), "-" if on_device else str(row.threads)
        table.add_row(row.engine, *sizes, compiled, speed, f"{ratio:.2f} times")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
