"""Reader of the constants in Swimmer's equations from its compiled MuJoCo model.

`docs/swimmer_dynamics.md` has the equations, their symbols and the sections named here.
"""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

import math

import mujoco
import numpy as np

from pes_rl.envs.closed_form.joint_limits import Limit
from pes_rl.envs.closed_form.planar_chain import Drag, PlanarChain


def read_chain(model: mujoco.MjModel) -> PlanarChain:
    """The constants of a compiled model.

    Raises:
        ValueError: If the equations do not describe this model.
    """
    _check(model)
    mass = model.body_mass[1:]
    lever = np.tril(np.tile(model.body_pos[[2, 3, 3], 0], (3, 1)), -1)
    lever += np.diag(model.body_ipos[1:, 0])
    total = mass.sum() + model.dof_armature[0]
    moment = mass @ lever
    coupling = lever.T @ (mass[:, None] * lever) - np.outer(moment, moment) / total
    inertia = np.array([_inertia_in_link(model, body) for body in (1, 2, 3)])
    # From phi to MuJoCo's relative angles: theta_i = phi_i - phi_{i-1}.
    relative = np.eye(3) - np.eye(3, k=-1)
    armature = relative.T @ (model.dof_armature[2:, None] * relative)
    along, across, turning = _drags(model, inertia)
    return PlanarChain(
        timestep=model.opt.timestep,
        gear=model.actuator_gear[:, 0].tolist(),
        control_range=model.actuator_ctrlrange.tolist(),
        lever=lever.tolist(),
        mass=float(total),
        moment=moment.tolist(),
        coupling=coupling.tolist(),
        inertia=(np.diag(inertia[:, 2]) + armature).tolist(),
        along=along,
        across=across,
        turning=turning,
        limits=(Limit.of_joint(model, 3), Limit.of_joint(model, 4)),
    )


def _inertia_in_link(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Inertia about the link's own axes (along, across, out of the plane)."""
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, model.body_iquat[body])
    axes = axes.reshape(3, 3)
    tensor = axes @ np.diag(model.body_inertia[body]) @ axes.T
    return np.diag(tensor)


def _drags(model: mujoco.MjModel, inertia: np.ndarray) -> tuple[Drag, Drag, Drag]:
    """Fluid forces along and across the links, and torque about them; section 4."""
    mass = model.body_mass[1:4, None]
    # A box of sides b has inertia mass (b_j^2 + b_k^2) / 12 about axis i.
    sides = np.sqrt(6 / mass * (inertia.sum(1, keepdims=True) - 2 * inertia))
    along, across, out = sides.T
    viscosity, density, mean = model.opt.viscosity, model.opt.density, sides.mean(1)
    straight = (3 * math.pi * viscosity * mean).tolist()
    return (
        Drag(straight, (density / 2 * across * out).tolist()),
        Drag(straight, (density / 2 * along * out).tolist()),
        Drag(
            (math.pi * viscosity * mean**3).tolist(),
            (density / 64 * out * (along**4 + across**4)).tolist(),
        ),
    )


def _check(m: mujoco.MjModel) -> None:
    """Raise `ValueError` for a model that the equations do not describe."""
    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    axes, upright = np.eye(3)[[0, 1, 2, 2, 2]], np.eye(4)[[0] * 4]
    along_x = not m.body_pos[2:, 1:].any() and not m.body_ipos[1:, 1:].any()
    passive = (m.dof_damping, m.jnt_stiffness, m.dof_frictionloss)
    conditions = {
        "two slides, three hinges": m.jnt_type.tolist() == [slide] * 2 + [hinge] * 3,
        "three links in a row": m.body_parentid.tolist() == [0, 0, 1, 2],
        "axes x, y, z, z, z": np.array_equal(m.jnt_axis, axes),
        "joints at the links' origins": not m.jnt_pos.any(),
        "links along x": along_x and np.array_equal(m.body_quat, upright),
        "slides of equal armature": m.dof_armature[0] == m.dof_armature[1],
        "no damping, springs or friction": not any(a.any() for a in passive),
        "limits on the last two hinges": m.jnt_limited.tolist() == [0, 0, 0, 1, 1],
        "limits without margin": not m.jnt_margin.any(),
        "the inertia model of the fluid": not m.geom_fluid.any(),
        "a fluid at rest": not m.opt.wind.any(),
        "motors on the last two hinges": m.actuator_trnid[:, 0].tolist() == [3, 4],
        "motors of gain 1": (m.actuator_gainprm[:, 0] == 1).all(),
        "no gravity in the plane": not m.opt.gravity[:2].any(),
        "Runge-Kutta": m.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4,
    }
    missing = [name for name, holds in conditions.items() if not holds]
    if missing:
        raise ValueError(
            "the equations of Swimmer do not describe this model; it lacks: "
            f"{'; '.join(missing)}"
        )
