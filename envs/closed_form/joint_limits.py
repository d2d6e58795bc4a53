"""MuJoCo's soft joint limits in closed form (MuJoCo's manual, "Constraint model").

A joint that is r beyond its range is pushed back by a torque f >= 0 such that

    A f + R f >= a_ref - a,  with equality where f > 0
    a_ref = k d(r) r - b (rate back into the range),  R = (1 - d(r)) / d(r) w0

where a is the acceleration back into the range without limits, A f is what the torques
add to it, and d(r), k, b and w0 are the impedance, stiffness, damping and inverse
weight that MuJoCo computes from solimp, solref and the model. Two limits have four sets
of acting torques; the problem is strictly convex, so exactly one set is consistent.
"""

# MuJoCo's names come from a binary module without stubs.
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import mujoco

Scalar = Any  # a JAX scalar or a Python number


@dataclass(frozen=True)
class Limit:
    """Soft limit of one joint with one degree of freedom.

    Attributes:
        lower: Lower end of the range, radians.
        upper: Upper end.
        stiffness: k, 1/s^2.
        damping: b, 1/s.
        impedance: MuJoCo's solimp: d at the edge, d at `width`, width, midpoint, power.
        inverse_weight: w0, 1/(kg m^2) for a hinge.
    """

    lower: float
    upper: float
    stiffness: float
    damping: float
    impedance: tuple[float, float, float, float, float]
    inverse_weight: float

    @classmethod
    def of_joint(cls, model: mujoco.MjModel, joint: int) -> "Limit":
        """The limit of one of a model's joints; its solref must be positive."""
        time_constant, damping_ratio = model.jnt_solref[joint]
        time_constant = max(time_constant, 2 * model.opt.timestep)  # "refsafe"
        impedance = model.jnt_solimp[joint].tolist()
        last = impedance[1]
        lower, upper = model.jnt_range[joint].tolist()
        return cls(
            lower=lower,
            upper=upper,
            stiffness=float(1 / (last * time_constant * damping_ratio) ** 2),
            damping=float(2 / (last * time_constant)),
            impedance=tuple(impedance),
            inverse_weight=float(model.dof_invweight0[joint]),
        )

    def evaluate(self, angle: Scalar, rate: Scalar) -> tuple[Scalar, ...]:
        """State of the limit at this angle and rate.

        Returns:
            (acting, side, R, a_ref): whether the joint is beyond its range, the sign of
            the torque that pushes it back, and the numbers of the equations above.
        """
        beyond = jnp.maximum(angle - self.upper, self.lower - angle)
        side = jnp.where(angle - self.upper > self.lower - angle, -1.0, 1.0)
        first, last, width, midpoint, power = self.impedance
        x = jnp.clip(beyond / width, 0.0, 1.0)
        rising = x**power / midpoint ** (power - 1)
        settling = 1 - (1 - x) ** power / (1 - midpoint) ** (power - 1)
        d = first + (last - first) * jnp.where(x <= midpoint, rising, settling)
        reference = self.stiffness * d * beyond - self.damping * side * rate
        return beyond > 0, side, (1 - d) / d * self.inverse_weight, reference


def limit_torques(
    diagonal: list[Scalar],
    cross: Scalar,
    shortfall: list[Scalar],
    acting: list[Scalar],
) -> tuple[Scalar, Scalar]:
    """Torques of two limits: f >= 0, [[K_0, C], [C, K_1]] f >= g, equal where f > 0.

    Args:
        diagonal: K = A + R.
        cross: C, the change of one acceleration by the torque of the other limit.
        shortfall: g, the reference minus the acceleration of each joint.
        acting: Whether each limit acts.
    """
    (k0, k1), (on0, on1) = diagonal, acting
    # A limit that does not act has no shortfall and no effect on the other.
    g0, g1 = (jnp.where(on, g, 0.0) for on, g in zip(acting, shortfall, strict=True))
    cross = jnp.where(on0 & on1, cross, 0.0)
    scale = 1.0 / (k0 * k1 - cross * cross)
    both0, both1 = scale * (k1 * g0 - cross * g1), scale * (k0 * g1 - cross * g0)
    both = (both0 > 0) & (both1 > 0)
    # If not both, then the one whose torque alone also satisfies the other limit.
    alone0, alone1 = jnp.maximum(g0 / k0, 0.0), jnp.maximum(g1 / k1, 0.0)
    only0 = (alone0 > 0) & (cross * alone0 >= g1)
    return (
        jnp.where(both, both0, jnp.where(only0, alone0, 0.0)),
        jnp.where(both, both1, jnp.where(only0, 0.0, alone1)),
    )
