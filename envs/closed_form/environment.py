"""MuJoCo tasks with dynamics in closed form, written in JAX: `jax:NAME`.

Task, model and constants are those of the native MuJoCo task of the same name.
Integration is MuJoCo's Runge-Kutta method of order 4 with a constant control. The
differences from MuJoCo are:

* float32 in place of float64, unless JAX is configured for float64;
* coordinates on which no acceleration depends (the position of a swimmer) start every
  environment step from 0, so that differences keep all their digits;
* a simulation that diverges becomes NaN, where MuJoCo warns and resets it; the engine
  ends its episode in both cases.
"""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax import lax

from pes_rl.envs.closed_form.swimmer_model import read_chain
from pes_rl.envs.mujoco.tasks import TASKS, Noise, load_model

Coordinates = tuple[Any, ...]  # a scalar for each of MuJoCo's coordinates
State = tuple[Coordinates, Coordinates]  # qpos and qvel


class Dynamics(Protocol):
    """Forward dynamics of a model without quaternions: its velocities are dq/dt."""

    @property
    def timestep(self) -> float:
        """Physics step, s."""
        ...

    @property
    def num_cyclic(self) -> int:
        """Number of leading coordinates on which no acceleration depends."""
        ...

    def acceleration(
        self, position: Coordinates, velocity: Coordinates, control: Coordinates
    ) -> Coordinates:
        """Accelerations of all coordinates."""
        ...


_DYNAMICS: dict[str, Callable[[mujoco.MjModel], Dynamics]] = {"swimmer": read_chain}


class ClosedFormEnvironment:
    """A task with dynamics in closed form, as a `DeviceEnvironment`.

    Every coordinate is a separate scalar, which `vmap` turns into a contiguous array
    over the particles: 1.5 times as fast as one vector for each particle.

    Args:
        name: A native MuJoCo task; so far only "swimmer" is available.
    """

    on_device = True

    def __init__(self, name: str) -> None:
        self.task = TASKS[name]
        self._model = model = load_model(self.task)
        self._dynamics = _DYNAMICS[name](model)
        self._first_pose = model.qpos0.tolist()
        assert isinstance(self.task.first_state, Noise)
        self._noise = self.task.first_state.scale
        zeros = {"qpos": np.zeros(model.nq), "qvel": np.zeros(model.nv)}
        self.observation_size = self.task.observe(model, zeros).size
        limits = model.actuator_ctrlrange.astype(np.float32)
        self.action_low, self.action_high = limits[:, 0], limits[:, 1]
        self.horizon = self.task.horizon

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        """First state of an episode and its observation, [O]."""
        size, scale = len(self._first_pose), self._noise
        noise = jax.random.uniform(key, (2, size), minval=-scale, maxval=scale)
        position = tuple(q + n for q, n in zip(self._first_pose, noise[0], strict=True))
        state = position, tuple(noise[1])
        return state, self._observe(state)

    def step(
        self, state: State, action: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array]:
        """State, observation [O], reward and terminated; `action` is [A]."""
        position, velocity = state
        cyclic = self._dynamics.num_cyclic
        zero = jnp.zeros_like(position[0])
        start = (zero,) * cyclic + position[cyclic:]

        def substep(state: State, _: None) -> tuple[State, None]:
            return runge_kutta(self._dynamics, state, tuple(action)), None

        frames = self.task.frame_skip
        state, _ = lax.scan(substep, (start, velocity), length=frames)
        reward, terminated = self.task.evaluate(
            self._model,
            {"qpos": jnp.stack(start)},
            {"qpos": jnp.stack(state[0])},
            action,
            self._dynamics.timestep * frames,
        )
        return state, self._observe(state), reward, terminated

    def _observe(self, state: State) -> jax.Array:
        fields = {"qpos": jnp.stack(state[0]), "qvel": jnp.stack(state[1])}
        return self.task.observe(self._model, fields)


def runge_kutta(dynamics: Dynamics, state: State, control: Coordinates) -> State:
    """One physics step by MuJoCo's mj_RungeKutta of order 4, with a constant control.

    The four stages are a scan: written out they run several times more slowly and take
    many times as long to compile.
    """
    h, dtype = dynamics.timestep, state[0][0].dtype
    ahead = jnp.asarray(
        [h / 2, h / 2, h, 0.0], dtype
    )  # time from the start of the step to the next stage
    weight = jnp.asarray([h / 6, h / 3, h / 3, h / 6], dtype)

    def stage(
        carry: tuple[State, State], scales: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[State, State], None]:
        (position, velocity), total = carry
        rates = velocity, dynamics.acceleration(position, velocity, control)
        return (
            _add_scaled(state, scales[0], rates),
            _add_scaled(total, scales[1], rates),
        ), None

    (_, total), _ = lax.scan(stage, (state, state), (ahead, weight))
    return total


def _add_scaled(state: State, scale: jax.Array, rates: State) -> State:
    return jax.tree.map(lambda x, rate: x + scale * rate, state, rates)
