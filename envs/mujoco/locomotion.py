"""Tasks of bodies that run, hop, walk and stand up."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable

import mujoco
import numpy as np

from pes_rl.envs.mujoco.task import (
    Fields,
    Noise,
    Task,
    join_last_axes,
    no_termination,
    positions_and_velocities,
    squared_norm,
    within,
)
from pes_rl.envs.rollout.episodes import Array


def _forward_velocity(before: Fields, now: Fields, seconds: float) -> Array:
    """Velocity along the first coordinate over the step, m/s."""
    return (now["qpos"][..., 0] - before["qpos"][..., 0]) / seconds


def _run(control_cost: float) -> Callable:
    """Reward: forward velocity less the cost of the unclipped action; no early end."""

    def evaluate(
        model: mujoco.MjModel,
        before: Fields,
        now: Fields,
        actions: Array,
        seconds: float,
    ) -> tuple[Array, Array]:
        del model
        velocity, cost = _forward_velocity(before, now, seconds), squared_norm(actions)
        return velocity - control_cost * cost, no_termination(now["qpos"])

    return evaluate


def _run_upright(healthy: Callable[[Fields], Array]) -> Callable:
    """Reward of `_run`, plus 1 while the body is healthy; else the episode ends."""

    def evaluate(
        model: mujoco.MjModel,
        before: Fields,
        now: Fields,
        actions: Array,
        seconds: float,
    ) -> tuple[Array, Array]:
        reward, _ = _run(1e-3)(model, before, now, actions, seconds)
        up = healthy(now)
        return reward + up, ~up

    return evaluate


def _hopper_healthy(now: Fields) -> Array:
    state = np.concat([now["qpos"][..., 2:], now["qvel"]], axis=-1)
    upright = within(now["qpos"][..., 2], -0.2, 0.2)
    return within(state, -100, 100).all(-1) & (now["qpos"][..., 1] > 0.7) & upright


def _walker_healthy(now: Fields) -> Array:
    height, angle = now["qpos"][..., 1], now["qpos"][..., 2]
    return within(height, 0.8, 2.0) & within(angle, -1.0, 1.0)


def _observe_ant(model: mujoco.MjModel, now: Fields) -> Array:
    contact = np.clip(now["cfrc_ext"], -1, 1)
    rest = positions_and_velocities(2)(model, now)
    return np.concat([rest, join_last_axes(contact[..., 1:, :])], axis=-1)


def _walk_on_four(
    model: mujoco.MjModel, before: Fields, now: Fields, actions: Array, seconds: float
) -> tuple[Array, Array]:
    """Velocity of the torso, plus 1 while 0.2 to 1 m high, less action and contacts."""
    del model
    forward = (now["xpos"][..., 1, 0] - before["xpos"][..., 1, 0]) / seconds
    state = np.concat([now["qpos"], now["qvel"]], axis=-1)
    height = now["qpos"][..., 2]
    up = np.isfinite(state).all(-1) & (height >= 0.2) & (height <= 1.0)
    contact = 5e-4 * squared_norm(join_last_axes(np.clip(now["cfrc_ext"], -1, 1)))
    return forward + up - (0.5 * squared_norm(actions) + contact), ~up


def _observe_humanoid(model: mujoco.MjModel, now: Fields) -> Array:
    bodies = [join_last_axes(now[name][..., 1:, :]) for name in ("cinert", "cvel")]
    contact = join_last_axes(now["cfrc_ext"][..., 1:, :])
    rest = positions_and_velocities(2)(model, now)
    actuators = now["qfrc_actuator"][..., 6:]
    return np.concat([rest, *bodies, actuators, contact], axis=-1)


def _walk_on_two(
    model: mujoco.MjModel, before: Fields, now: Fields, actions: Array, seconds: float
) -> tuple[Array, Array]:
    """Velocity of the centre of mass times 1.25, 5 while 1 to 2 m high, less costs.

    The costs are those of the action and of the contact forces.
    """
    mass = model.body_mass
    centres = [np.vecdot(mass, f["xipos"][..., 0]) / mass.sum() for f in (before, now)]
    forward = 1.25 * (centres[1] - centres[0]) / seconds
    up = within(now["qpos"][..., 2], 1.0, 2.0)
    contact = np.minimum(5e-7 * squared_norm(join_last_axes(now["cfrc_ext"])), 10.0)
    return forward + 5.0 * up - (0.1 * squared_norm(actions) + contact), ~up


def _stand_up(
    model: mujoco.MjModel, before: Fields, now: Fields, actions: Array, seconds: float
) -> tuple[Array, Array]:
    """Height divided by the physics step, less costs, plus 1; no early end."""
    del before, seconds
    height = now["qpos"][..., 2] / model.opt.timestep
    contact = np.minimum(0.5e-6 * squared_norm(join_last_axes(now["cfrc_ext"])), 10.0)
    reward = height - 0.1 * squared_norm(actions) - contact + 1
    return reward, no_termination(now["qpos"])


_HUMANOID_FIELDS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")

LOCOMOTION = {
    "swimmer": Task(
        "Swimmer-v5",
        "swimmer.xml",
        frame_skip=4,
        first_state=Noise(0.1),
        observe=positions_and_velocities(2),
        evaluate=_run(1e-4),
        previous_fields=("qpos",),
    ),
    "halfcheetah": Task(
        "HalfCheetah-v5",
        "half_cheetah.xml",
        frame_skip=5,
        first_state=Noise(0.1, normal=True),
        observe=positions_and_velocities(1),
        evaluate=_run(0.1),
        previous_fields=("qpos",),
    ),
    "hopper": Task(
        "Hopper-v5",
        "hopper.xml",
        frame_skip=4,
        first_state=Noise(5e-3),
        observe=positions_and_velocities(1, clip=10),
        evaluate=_run_upright(_hopper_healthy),
        previous_fields=("qpos",),
    ),
    "walker2d": Task(
        "Walker2d-v5",
        "walker2d_v5.xml",
        frame_skip=4,
        first_state=Noise(5e-3),
        observe=positions_and_velocities(1, clip=10),
        evaluate=_run_upright(_walker_healthy),
        previous_fields=("qpos",),
    ),
    "ant": Task(
        "Ant-v5",
        "ant.xml",
        frame_skip=5,
        first_state=Noise(0.1, normal=True),
        observe=_observe_ant,
        evaluate=_walk_on_four,
        fields=("xpos", "cfrc_ext"),
        previous_fields=("xpos",),
    ),
    "humanoid": Task(
        "Humanoid-v5",
        "humanoid.xml",
        frame_skip=5,
        first_state=Noise(1e-2),
        observe=_observe_humanoid,
        evaluate=_walk_on_two,
        fields=("xipos", *_HUMANOID_FIELDS),
        previous_fields=("xipos",),
    ),
    "humanoidstandup": Task(
        "HumanoidStandup-v5",
        "humanoidstandup.xml",
        frame_skip=5,
        first_state=Noise(1e-2),
        observe=_observe_humanoid,
        evaluate=_stand_up,
        fields=_HUMANOID_FIELDS,
    ),
}
