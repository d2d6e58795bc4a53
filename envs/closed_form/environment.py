"""MuJoCo tasks whose dynamics are written in closed form, in JAX: `jax:NAME`.

Task, model and constants are those of the native MuJoCo task of the same name; a file
of its own gives each model's accelerations. Integration is MuJoCo's Runge-Kutta of
order 4, the control held. What differs from MuJoCo:

* float32 in place of float64, unless JAX is told otherwise;
* coordinates on which no acceleration depends (a swimmer's place) start every
  environment step from 0, so that differences keep all their digits;
* a simulation that diverges becomes NaN, where MuJoCo warns and starts over; the engine
  ends its episode either way.
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
    """A model whose coordinates' rates are its velocities (no quaternions)."""

    @property
    def timestep(self) -> float:
        """Physics step, s."""
        ...

    @property
    def num_cyclic(self) -> int:
        """Leading coordinates on which no acceleration depends."""
        ...

    def acceleration(
        self, position: Coordinates, velocity: Coordinates, control: Coordinates
    ) -> Coordinates:
        """Accelerations of all coordinates."""
        ...


_DYNAMICS: dict[str, Callable[[mujoco.MjModel], Dynamics]] = {"swimmer": read_chain}


class ClosedFormEnvironment:
    """A task in closed form; a `DeviceEnvironment`.

    Coordinates are kept as scalars of their own, which `vmap` turns into contiguous
    arrays over the particles: half again as fast as one vector a particle.

    Args:
        name: A native MuJoCo task; "swimmer" is the one written so far.
    """

    on_device = True

    def __init__(self, name: str) -> None:
        self.task = TASKS[name]
        self._model = model = load_model(self.task)
        self._dynamics = _DYNAMICS[name](model)
        self._first_pose = model.qpos0.tolist()
        assert isinstance(self.task.first_state, Noise)
        self._noise = self.task.first_state.scale
        nowhere = {"qpos": np.zeros(model.nq), "qvel": np.zeros(model.nv)}
        self.observation_size = self.task.observe(model, nowhere).size
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
    """One physics step: MuJoCo's mj_RungeKutta of order 4, the control held.

    The four stages are a scan: written out, they run at a fraction of the speed and
    compile many times longer.
    """
    h, dtype = dynamics.timestep, state[0][0].dtype
    ahead = jnp.asarray([h / 2, h / 2, h, 0.0], dtype)  # from the start to the next
    weight = jnp.asarray([h / 6, h / 3, h / 3, h / 6], dtype)

    def stage(
        carry: tuple[State, State], scales: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[State, State], None]:
        (position, velocity), total = carry
        rates = velocity, dynamics.acceleration(position, velocity, control)
        return (_plus(state, scales[0], rates), _plus(total, scales[1], rates)), None

    (_, total), _ = lax.scan(stage, (state, state), (ahead, weight))
    return total


def _plus(state: State, scale: jax.Array, rates: State) -> State:
    return jax.tree.map(lambda x, rate: x + scale * rate, state, rates)
