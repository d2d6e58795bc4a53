"""Tasks of balancing poles, and of arms that reach and push."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable

import mujoco
import numpy as np

from pes_rl.envs.mujoco.task import (
    Fields,
    InitialState,
    Noise,
    Task,
    no_termination,
    positions_and_velocities,
    squared_norm,
)
from pes_rl.envs.rollout.episodes import Array


def _balance(
    model: mujoco.MjModel, before: Fields, now: Fields, actions: Array, seconds: float
) -> tuple[Array, Array]:
    """Reward 1 while the pole is within 0.2 rad of upright; else the episode ends."""
    del model, before, actions, seconds
    fallen = ~(np.abs(now["qpos"][..., 1]) <= 0.2)
    return 1.0 - fallen, fallen


def _observe_double_pendulum(model: mujoco.MjModel, now: Fields) -> Array:
    del model
    qpos, forces = now["qpos"], now["qfrc_constraint"][..., :1]
    return np.concat(
        [
            qpos[..., :1],
            np.sin(qpos[..., 1:]),
            np.cos(qpos[..., 1:]),
            np.clip(now["qvel"], -10, 10),
            np.clip(forces, -10, 10),
        ],
        axis=-1,
    )


def _balance_two(
    model: mujoco.MjModel, before: Fields, now: Fields, actions: Array, seconds: float
) -> tuple[Array, Array]:
    """Reward 10 while the tip is above 1 m, less its distance to (0, 2) and rates."""
    del model, before, actions, seconds
    x, y = now["site_xpos"][..., 0, 0], now["site_xpos"][..., 0, 2]
    first, second = now["qvel"][..., 1], now["qvel"][..., 2]
    fallen = y <= 1
    distance = 0.01 * x**2 + (y - 2) ** 2
    rates = 1e-3 * first**2 + 5e-3 * second**2
    return 10.0 * ~fallen - distance - rates, fallen


def _start_reacher(
    model: mujoco.MjModel, generator: np.random.Generator
) -> InitialState:
    """An arm near its initial pose, and a target uniform in a disc of radius 0.2 m."""
    qpos = model.qpos0 + generator.uniform(-0.1, 0.1, model.nq)
    qpos[-2:] = _draw_point(generator, [-0.2, -0.2], [0.2, 0.2], lambda r: r < 0.2)
    qvel = generator.uniform(-0.005, 0.005, model.nv)
    qvel[-2:] = 0
    return qpos, qvel


def _start_pusher(
    model: mujoco.MjModel, generator: np.random.Generator
) -> InitialState:
    """An arm in its initial pose, and an object at least 0.17 m from the goal."""
    qpos = model.qpos0.copy()
    qpos[-4:-2] = _draw_point(generator, [-0.3, -0.2], [0, 0.2], lambda r: r > 0.17)
    qpos[-2:] = 0
    qvel = generator.uniform(-0.005, 0.005, model.nv)
    qvel[-4:] = 0
    return qpos, qvel


def _draw_point(
    generator: np.random.Generator,
    low: list[float],
    high: list[float],
    accepts: Callable[[float], bool],
) -> np.ndarray:
    """A uniform point of a box whose norm is accepted, by rejection sampling."""
    while True:
        point = generator.uniform(low, high)
        if accepts(float(np.linalg.norm(point))):
            return point


def _offset(model: mujoco.MjModel, now: Fields, one: str, other: str) -> Array:
    """Vector from body `other` to body `one`, m."""
    ids = [model.body(name).id for name in (one, other)]
    return now["xpos"][..., ids[0], :] - now["xpos"][..., ids[1], :]


def _observe_reacher(model: mujoco.MjModel, now: Fields) -> Array:
    qpos, qvel = now["qpos"], now["qvel"]
    angles, to_go = qpos[..., :2], _offset(model, now, "fingertip", "target")[..., :2]
    parts = [np.cos(angles), np.sin(angles), qpos[..., 2:], qvel[..., :2], to_go]
    return np.concat(parts, axis=-1)


def _reach(
    model: mujoco.MjModel, before: Fields, now: Fields, actions: Array, seconds: float
) -> tuple[Array, Array]:
    """Reward: minus the distance to the target, less the squared action."""
    del before, seconds
    to_go = np.sqrt(squared_norm(_offset(model, now, "fingertip", "target")))
    return -to_go - squared_norm(actions), no_termination(now["qpos"])


def _observe_pusher(model: mujoco.MjModel, now: Fields) -> Array:
    bodies = [model.body(name).id for name in ("tips_arm", "object", "goal")]
    places = [now["xpos"][..., body, :] for body in bodies]
    return np.concat([now["qpos"][..., :7], now["qvel"][..., :7], *places], axis=-1)


def _push(
    model: mujoco.MjModel, before: Fields, now: Fields, actions: Array, seconds: float
) -> tuple[Array, Array]:
    """Reward: minus the sum of three costs.

    They are the object's distance to the goal, half of its distance to the arm, and a
    tenth of the squared action.
    """
    del before, seconds
    to_arm, to_goal = (
        np.sqrt(squared_norm(_offset(model, now, "object", other)))
        for other in ("tips_arm", "goal")
    )
    reward = -to_goal - 0.1 * squared_norm(actions) - 0.5 * to_arm
    return reward, no_termination(now["qpos"])


ARMS_AND_POLES = {
    "inverted_pendulum": Task(
        "InvertedPendulum-v5",
        "inverted_pendulum.xml",
        frame_skip=2,
        first_state=Noise(0.01),
        observe=positions_and_velocities(0),
        evaluate=_balance,
    ),
    "inverted_double_pendulum": Task(
        "InvertedDoublePendulum-v5",
        "inverted_double_pendulum.xml",
        frame_skip=5,
        first_state=Noise(0.1, normal=True),
        observe=_observe_double_pendulum,
        evaluate=_balance_two,
        fields=("site_xpos", "qfrc_constraint"),
    ),
    "reacher": Task(
        "Reacher-v5",
        "reacher.xml",
        frame_skip=2,
        first_state=_start_reacher,
        observe=_observe_reacher,
        evaluate=_reach,
        horizon=50,
        fields=("xpos",),
    ),
    "pusher": Task(
        "Pusher-v5",
        "pusher_v5.xml",
        frame_skip=5,
        first_state=_start_pusher,
        observe=_observe_pusher,
        evaluate=_push,
        horizon=100,
        fields=("xpos",),
    ),
}
