"""Swimmer in closed form beside MuJoCo's own engine."""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from collections import Counter
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from jax import lax

from pes_rl.envs import DeviceRollout, HostRollout, PolicyProblem, make
from pes_rl.envs.closed_form.environment import ClosedFormEnvironment
from pes_rl.envs.closed_form.joint_limits import limit_torques
from pes_rl.envs.closed_form.swimmer_model import read_chain
from pes_rl.envs.mujoco.environment import MujocoEnvironment
from pes_rl.envs.mujoco.tasks import ASSETS, TASKS, load_model

TASK = TASKS["swimmer"]
HINGES = [3, 4]

# Solves the task; found by `python -m pes_rl.train --env jax:swimmer`.
TRAINED = np.array(
    [
        [0.613, -0.238, -1.191, 0.015, 0.065, 0.141, 1.029, -0.234],
        [-0.892, 1.191, -0.250, -0.342, 0.375, -0.449, 0.822, 0.152],
    ]
)


def scalars(array: Any) -> tuple[Any, ...]:
    return tuple(jnp.asarray(array))


def act(theta: Any, observation: Any) -> Any:
    """A linear policy within the action space. # shape=(2,) or (N, 2)"""
    xp = theta.__array_namespace__()
    weights = theta.reshape(*theta.shape[:-1], 2, 8)
    return xp.clip(xp.vecdot(weights, observation[..., None, :]), -1.0, 1.0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("nearest", "farthest"),
    [
        pytest.param(0, 1, id="free"),
        pytest.param(0.99, 1.03, id="edge"),
        pytest.param(1, 1.6, id="beyond"),
    ],
)
def test_accelerations_are_those_of_mujoco(nearest, farthest):
    """Random states and controls, the hinges' angles as multiples of their range.

    At the edge both limits act in every combination of sides, and neither, one or both
    of them push.
    """
    model = load_model(TASK)
    data = mujoco.MjData(model)
    accelerate = jax.jit(read_chain(model).acceleration)
    generator = np.random.default_rng(0)
    cases = Counter()
    for _ in range(1000):
        mujoco.mj_resetData(model, data)
        side = generator.choice([-1, 1], 2)
        reach = side * generator.uniform(nearest, farthest, 2)
        data.qpos[:3] = generator.uniform(-4, 4, 3)
        data.qpos[HINGES] = reach * model.jnt_range[HINGES, 1]
        data.qvel[:] = 3 * generator.normal(size=5)
        data.ctrl[:] = generator.uniform(-1.5, 1.5, 2)
        mujoco.mj_forward(model, data)
        ours = np.array(accelerate(*map(scalars, (data.qpos, data.qvel, data.ctrl))))
        error = np.abs(ours - data.qacc).max() / np.abs(data.qacc).max()
        assert error < 1e-8
        if data.nefc == 2:
            cases[tuple(side), tuple(data.efc_force > 0)] += 1
    if nearest == 0.99:
        assert len(cases) == 16


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kind", "length", "bound"), [("noise", 1000, 1e-5), ("stroke", 300, 1e-8)]
)
def test_trajectories_follow_mujoco(kind, length, bound):
    """Observations and rewards in float64, the hinges' limits struck on the way.

    A hinge that strikes its limit multiplies a difference, so the bounds are far above
    rounding, and a stroke that beats the hinges against them is followed for less long.
    """
    model = load_model(TASK)
    data = mujoco.MjData(model)
    generator = np.random.default_rng(1)
    if kind == "noise":
        controls = generator.uniform(-1.3, 1.3, (length, 2))
    else:
        controls = np.sin(0.15 * np.arange(length)[:, None] + np.array([0.0, 2.0]))
    environment = ClosedFormEnvironment("swimmer")
    data.qpos[:], data.qvel[:] = generator.uniform(-0.1, 0.1, (2, 5))
    state = scalars(data.qpos), scalars(data.qvel)

    def step(state: Any, action: jax.Array) -> Any:
        state, observation, reward, _ = environment.step(state, action)
        return state, (observation, reward)

    _, (observations, rewards) = jax.jit(lambda s, u: lax.scan(step, s, u))(
        state, jnp.asarray(controls)
    )
    struck = 0
    for k, control in enumerate(controls):
        before, data.ctrl[:] = {"qpos": data.qpos.copy()}, control
        mujoco.mj_step(model, data, TASK.frame_skip)
        struck += data.nefc > 0
        now = {"qpos": data.qpos, "qvel": data.qvel}
        reward, _ = TASK.evaluate(model, before, now, control, 0.04)
        expected = TASK.observe(model, now)
        np.testing.assert_allclose(observations[k], expected, rtol=0, atol=bound)
        np.testing.assert_allclose(rewards[k], reward, rtol=0, atol=bound)
    assert struck > 10


def same_start(num_episodes: int) -> tuple[Any, Any]:
    """Particles at the same first states on the host and on the device, float32."""
    host = MujocoEnvironment("swimmer", num_threads=1)
    ours = HostRollout(host, act, TASK.horizon)
    start = ours.reset(jax.random.key(0), num_episodes, members=1)
    environment = make("jax:swimmer")
    device: Any = DeviceRollout(PolicyProblem(environment, act), TASK.horizon)  # pyright: ignore
    host.load(start.state.simulation)
    qpos = jnp.asarray(host._fields["qpos"], jnp.float32)
    qvel = jnp.asarray(host._fields["qvel"], jnp.float32)
    observation = jnp.asarray(start.state.observation, jnp.float32)
    twin = device.reset(jax.random.key(0), num_episodes, members=1)
    state = (tuple(qpos.T), tuple(qvel.T)), observation
    return (ours, start), (device, replace(twin, state=state))


@pytest.mark.parametrize(
    ("spread", "typical", "mean"),
    [
        pytest.param(0.03, 0.001, 0.1, id="trained"),
        pytest.param(None, 0.02, 1.0, id="random"),
    ],
)
def test_returns_in_float32_are_those_of_mujoco(spread, typical, mean):
    """100 policies, each one episode from one start on either engine.

    The median of the difference is within `typical`. A policy that beats the hinges
    against their limits multiplies rounding until the episodes part, some by 20; but
    none of the engines swims farther, so the mean is within a bound, too.
    """
    generator = np.random.default_rng(2)
    noise = generator.normal(size=(100, 16))
    thetas = noise if spread is None else TRAINED.ravel() + spread * noise
    thetas = jnp.asarray(thetas, jnp.float32)
    returns = []
    for rollout, particles in same_start(len(thetas)):
        _, segment = rollout.unroll(particles, thetas, TASK.horizon)
        returns.append(-np.asarray(segment.loss).sum(0))
    difference = returns[1] - returns[0]
    assert np.median(np.abs(difference)) < typical
    assert abs(difference.mean()) < mean
    if spread is not None:
        assert returns[0].mean() > 300


def test_first_states_are_gymnasiums_noise_and_follow_the_key():
    environment = ClosedFormEnvironment("swimmer")
    keys = jax.random.split(jax.random.key(3), 200)
    (qpos, qvel), observations = jax.vmap(environment.reset)(keys)
    both = np.concatenate([qpos, qvel])
    assert both.min() < -0.095
    assert both.max() > 0.095
    assert np.abs(both).max() <= 0.1
    np.testing.assert_array_equal(observations, both[2:].T)
    _, again = environment.reset(keys[5])
    np.testing.assert_array_equal(again, observations[5])


def test_it_can_be_differentiated():
    """Through a whole environment step, limits struck: beside a finite difference."""
    environment = ClosedFormEnvironment("swimmer")

    def reward(action: jax.Array) -> jax.Array:
        position = scalars(jnp.array([0.0, 0.0, 0.3, 1.76, -1.76], action.dtype))
        velocity = scalars(jnp.array([0.5, -0.3, 0.4, 1.0, -1.0], action.dtype))
        return environment.step((position, velocity), action)[2]

    with jax.enable_x64(True):
        action, h = jnp.array([0.4, -0.2]), 1e-6
        gradient = jax.grad(reward)(action)
        for i in range(2):
            ahead, behind = (reward(action.at[i].add(d)) for d in (h, -h))
            np.testing.assert_allclose(
                gradient[i], (ahead - behind) / (2 * h), rtol=1e-5
            )


def test_two_limits_that_cannot_both_push_are_answered_by_one():
    """Against all four sets by hand: the first limit's torque satisfies the second."""
    on, idle = jnp.array(True), jnp.array(False)

    def torques(short: list[float], acting: list[Any]) -> list[float]:
        answer = limit_torques([2.0, 4.0], 1.0, short, acting)
        return [float(torque) for torque in answer]

    assert torques([3.0, 5.0], [on, on]) == pytest.approx([1.0, 1.0])
    assert torques([2.0, 0.5], [on, on]) == pytest.approx([1.0, 0.0])
    assert torques([0.1, 4.0], [on, on]) == pytest.approx([0.0, 1.0])
    assert torques([-1.0, -1.0], [on, on]) == [0.0, 0.0]
    assert torques([2.0, 4.0], [idle, on]) == pytest.approx([0.0, 1.0])
    assert torques([2.0, 4.0], [on, idle]) == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("old", "new", "lacks"),
    [
        ('gear="150.0" joint="motor2_rot"', 'gear="150.0" joint="motor1_rot"', "motor"),
        ('integrator="RK4"', 'integrator="Euler"', "Runge-Kutta"),
        ("armature='0.1'", "armature='0.1' damping='1'", "no damping"),
        ('axis="0 1 0"', 'axis="0 0 1"', "axes"),
    ],
)
def test_another_model_is_refused(old, new, lacks, tmp_path):
    text = (ASSETS / TASK.model_file).read_text()
    assert old in text
    (tmp_path / "other.xml").write_text(text.replace(old, new))
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "other.xml"))
    with pytest.raises(ValueError, match=lacks):
        read_chain(model)
