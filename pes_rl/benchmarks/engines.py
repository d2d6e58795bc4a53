"""The engines that `pes_rl.bench` measures side by side, each ready to run."""

import importlib
import io
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from mujoco.batch import Batch

from pes_rl.assembly.factories import make_policy, make_rollout
from pes_rl.config.train_config import make_config
from pes_rl.envs.mujoco.environment import profiler_off
from pes_rl.envs.mujoco.tasks import load_model
from pes_rl.envs.registry import make

STEPS = 100
"""Steps of every environment in a run of most engines: a usual truncation length."""

Run = Callable[[], object]  # takes those steps; returns when they are done


@dataclass(frozen=True)
class Size:
    """Environments stepped together, and the threads or processes that step them."""

    particles: int
    threads: int


@dataclass(frozen=True)
class Row:
    """A row of the table: one engine; `threads` is None where XLA decides.

    A run of it takes `steps` of every environment.
    """

    engine: str
    env: str
    particles: int
    threads: int | None
    steps_per_second: float = 0.0
    compile_seconds: float = 0.0
    steps: int = STEPS


@dataclass(frozen=True)
class Closed:
    """The rollout that training uses, with its particles and parameters."""

    row: Row
    rollout: Any
    particles: Any
    thetas: jax.Array
    unroll: Callable[..., Any]

    def run(self) -> object:
        return jax.block_until_ready(self.unroll(self.particles, self.thetas, STEPS))


def closed_loop(env: str, engine: str, size: Size, backend: str | None) -> Closed:
    """The closed loop of linear policies in an environment, under the name `engine`."""
    options: Any = {"num_threads": size.threads, "backend": backend}
    training = make_config(env, "pes", **options)
    environment: Any = make(env, **options)
    policy = make_policy(training, environment)
    rollout: Any = make_rollout(training, environment, policy)
    pairs, num_parameters = size.particles // 2, policy.num_parameters
    thetas = in_pairs(0.1, pairs, num_parameters)
    reset, unroll = rollout.reset, rollout.unroll
    if rollout.on_device:
        reset = jax.jit(reset, static_argnums=1, static_argnames="stagger")
        unroll = jax.jit(unroll, static_argnums=2)
    # Staggered and under way, so that episodes end as often as in training.
    particles = reset(jax.random.key(1), pairs, stagger=True)
    particles, _ = rollout.unroll(particles, thetas, STEPS)
    row = Row(engine, env, 2 * pairs, None if rollout.on_device else size.threads)
    return Closed(row, rollout, particles, thetas, unroll)


def in_pairs(sigma: float, pairs: int, num_parameters: int) -> jax.Array:
    """Antithetic perturbations. # shape=(2 * pairs, num_parameters)."""
    noise = sigma * jax.random.normal(jax.random.key(0), (pairs, num_parameters))
    return jnp.stack([noise, -noise], 1).reshape(2 * pairs, num_parameters)


def make_engines(
    env: str, size: Size, backend: str | None, stack: ExitStack, *, peers: bool = True
) -> Iterator[tuple[Row, Run]]:
    """The engines to compare, that of `pes_rl` first; `stack` will close them.

    Without `peers` none but it and its own bare physics.
    """
    ours = closed_loop(env, "pes_rl", size, backend)
    yield ours.row, ours.run
    rollout, particles, thetas = ours.rollout, ours.particles, ours.thetas
    if not rollout.on_device:
        for engine, tuned in _OPEN_LOOPS.items():
            run = open_loop(rollout, particles, thetas, size.threads, tuned=tuned)
            yield replace(ours.row, engine=engine), run
        if not peers:
            return
        task_id = rollout.environment.task.gymnasium_id
        for peer, envs in _peers(task_id, ours.row, size.threads):
            stack.callback(envs.close)
            yield peer, _random_steps(envs, peer.particles)
        return
    run = _scan(rollout, particles, thetas)
    yield replace(ours.row, engine="bare physics scan"), run
    family, _, task = env.partition(":")
    if family == "jax" and peers:
        for name, engine in ((task, "native MuJoCo"), (f"brax:{task}", "Brax")):
            other = closed_loop(name, f"pes_rl on {engine}", size, None)
            yield other.row, other.run
        run = _mjx_scan(rollout.problem.environment.task, size.particles)
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


_OPEN_LOOPS = {"mujoco.batch open loop": True, "mujoco.batch as it comes": False}


def open_loop(
    rollout: Any, particles: Any, thetas: jax.Array, threads: int, *, tuned: bool
) -> Run:
    """The physics of the closed loop alone, from the same states on fixed controls.

    `tuned` as the rollout's environment runs it; else with MuJoCo's profiler on and
    every search that the task's file leaves on.
    """
    environment, controls = rollout.environment, []

    def act_and_record(thetas: np.ndarray, observations: np.ndarray) -> np.ndarray:
        controls.append(rollout.act(thetas, observations))
        return controls[-1]

    replace(rollout, act=act_and_record).unroll(particles, thetas, STEPS)
    model = environment.model if tuned else load_model(environment.task)
    batch = Batch(model, len(thetas), nthread=threads)
    ctrl = batch.bind("ctrl")
    rows, _ = particles.state.simulation

    def run() -> None:
        batch.state[:] = rows
        for control in controls:
            ctrl[:] = control
            with profiler_off() if tuned else nullcontext():
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
    imports = [
        "tyro",
        "pes_rl.assembly.assemble",
        "pes_rl.runtime.progress",
        "gymnasium.envs.mujoco",
    ]
    multiprocessing.set_forkserver_preload(imports)
    kind = {"context": "forkserver"}
    for m in sorted({min(n, 64), threads}):  # Hundreds of processes would need GBs.
        # Ctrl-C is the parent's to handle.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            envs = gymnasium.make_vec(task_id, m, "async", vector_kwargs=kind)
        finally:
            signal.signal(signal.SIGINT, handler)
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
