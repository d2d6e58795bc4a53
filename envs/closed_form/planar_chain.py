"""Forward dynamics of MuJoCo's Swimmer, a planar chain in a fluid, in closed form.

Three links hang on each other by two hinges with motors; link 0 slides along x and y
and turns. The accelerations follow from three linear equations for the angular
accelerations w' of the links:

    sum_k (H_jk cos(phi_k - phi_j) + D_jk) w_k'
        = Q_j + N_j + sum_i (B_ij - s_j / M) n_j.F_i
          + sum_k H_jk sin(phi_k - phi_j) w_k^2

`docs/swimmer_dynamics.md` defines the symbols and derives the equations; the comments
here name its sections. MuJoCo finds the torques of the joint limits by iteration to a
tolerance; everything else differs from it by rounding alone.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jax.numpy as jnp

from pes_rl.envs.closed_form.joint_limits import Limit, limit_torques

Scalar = Any  # a JAX scalar or a Python number

LINKS = range(3)


@dataclass(frozen=True)
class Drag:
    """Fluid force -(linear + quadratic |v|) v on each link, for one kind of motion v.

    Attributes:
        linear: Coefficients from the viscosity. # shape=(3,)
        quadratic: Coefficients from the density. # shape=(3,)
    """

    linear: list[float]
    quadratic: list[float]

    def __call__(self, link: int, velocity: Scalar) -> Scalar:
        scale = self.linear[link] + self.quadratic[link] * jnp.abs(velocity)
        return -scale * velocity


@dataclass(frozen=True)
class PlanarChain:
    """Constants of the swimmer model, and its accelerations.

    `read_chain` reads the constants from a compiled model.

    Attributes:
        timestep: MuJoCo's physics step, s.
        gear: Torque of each motor at control 1. # shape=(2,)
        control_range: Range to which MuJoCo clips the controls. # shape=(2, 2)
        lever: B, indexed [link][hinge or centre]; section 1. # shape=(3, 3)
        mass: M, the mass of all links plus the armature.
        moment: s; section 2. # shape=(3,)
        coupling: H; section 3. # shape=(3, 3)
        inertia: D; section 2. # shape=(3, 3)
        along, across, turning: Fluid forces on v_u, v_n and w; section 4.
        limits: Limits of hinges 1 and 2; section 5.
    """

    timestep: float
    gear: list[float]
    control_range: list[list[float]]
    lever: list[list[float]]
    mass: float
    moment: list[float]
    coupling: list[list[float]]
    inertia: list[list[float]]
    along: Drag
    across: Drag
    turning: Drag
    limits: tuple[Limit, Limit]

    num_cyclic = 2
    """Number of leading coordinates (x and y) on which no acceleration depends."""

    def acceleration(
        self,
        position: tuple[Scalar, ...],
        velocity: tuple[Scalar, ...],
        control: tuple[Scalar, ...],
    ) -> tuple[Scalar, ...]:
        """Accelerations d^2 q / dt^2 at MuJoCo's qpos and qvel.

        All arguments are tuples of scalars, which `vmap` turns into contiguous arrays.
        """
        angles = tuple(accumulate(position[2:]))
        rates = tuple(accumulate(velocity[2:]))
        one = 1.0 + 0.0 * velocity[0]
        cos = _compute_once([jnp.cos(angle) for angle in angles], one)
        sin = _compute_once([jnp.sin(angle) for angle in angles], one)
        forces, torques = self._fluid(velocity[:2], rates, cos, sin)
        force = tuple(map(sum, zip(*forces, strict=True)))
        inverse = self._inverse_inertia(cos, sin)
        right_side = self._right_side(control, forces, force, torques, rates, cos, sin)
        turn = _compute_once([_dot(row, right_side) for row in inverse], one)
        turn = _compute_once(
            self._with_limits(turn, inverse, position[3:], velocity[3:]), one
        )
        swing = [s * rate**2 for s, rate in zip(self.moment, rates, strict=True)]
        pull = [s * w for s, w in zip(self.moment, turn, strict=True)]
        slide_x = force[0] + _dot(swing, cos) + _dot(pull, sin)
        slide_y = force[1] + _dot(swing, sin) - _dot(pull, cos)
        relative = (turn[0], turn[1] - turn[0], turn[2] - turn[1])
        return slide_x / self.mass, slide_y / self.mass, *relative

    def _fluid(
        self,
        base: tuple[Scalar, ...],
        rates: tuple[Scalar, ...],
        cos: list[Scalar],
        sin: list[Scalar],
    ) -> tuple[list[tuple[Scalar, Scalar]], list[Scalar]]:
        """Forces F_i (x, y) and torques N_i on the links; section 4."""
        forces, torques = [], []
        for i in LINKS:
            reach = [self.lever[i][j] * rates[j] for j in range(i + 1)]
            x = base[0] - sum(r * s for r, s in zip(reach, sin, strict=False))
            y = base[1] + sum(r * c for r, c in zip(reach, cos, strict=False))
            along = self.along(i, cos[i] * x + sin[i] * y)
            across = self.across(i, cos[i] * y - sin[i] * x)
            x, y = cos[i] * along - sin[i] * across, sin[i] * along + cos[i] * across
            forces.append((x, y))
            torques.append(self.turning(i, rates[i]))
        return forces, torques

    def _right_side(
        self,
        control: tuple[Scalar, ...],
        forces: list[tuple[Scalar, Scalar]],
        force: tuple[Scalar, ...],
        torques: list[Scalar],
        rates: tuple[Scalar, ...],
        cos: list[Scalar],
        sin: list[Scalar],
    ) -> list[Scalar]:
        """The right-hand side of section 3."""
        first, second = (
            gear * jnp.clip(u, *ends)
            for u, gear, ends in zip(
                control, self.gear, self.control_range, strict=True
            )
        )
        motors, right_side = (-first, first - second, second), []
        for j in LINKS:
            share = self.moment[j] / self.mass
            x, y = (
                sum(self.lever[i][j] * forces[i][axis] for i in range(j, 3))
                - share * force[axis]
                for axis in (0, 1)
            )
            swing = sum(
                self.coupling[j][k]
                * (sin[k] * cos[j] - cos[k] * sin[j])
                * rates[k] ** 2
                for k in LINKS
                if k != j
            )
            right_side.append(motors[j] + torques[j] + cos[j] * y - sin[j] * x + swing)
        return right_side

    def _inverse_inertia(
        self, cos: list[Scalar], sin: list[Scalar]
    ) -> list[tuple[Scalar, ...]]:
        """Inverse of the symmetric matrix of section 3, by its cofactors."""

        def entry(j: int, k: int) -> Scalar:
            bend = cos[j] * cos[k] + sin[j] * sin[k] if j != k else 1.0
            return self.coupling[j][k] * bend + self.inertia[j][k]

        a, b, c = (entry(0, k) for k in LINKS)
        d, e, f = entry(1, 1), entry(1, 2), entry(2, 2)
        ab, ac, bc = c * e - b * f, b * e - c * d, b * c - a * e
        aa, bb, cc = d * f - e * e, a * f - c * c, a * d - b * b
        scale = 1.0 / (a * aa + b * ab + c * ac)
        return [
            (scale * aa, scale * ab, scale * ac),
            (scale * ab, scale * bb, scale * bc),
            (scale * ac, scale * bc, scale * cc),
        ]

    def _with_limits(
        self,
        turn: list[Scalar],
        inverse: list[tuple[Scalar, ...]],
        angles: tuple[Scalar, ...],
        rates: tuple[Scalar, ...],
    ) -> list[Scalar]:
        """Angular accelerations w' including the torques of the limits; section 5."""
        sides, responses, shortfall, diagonal, acting = [], [], [], [], []
        for i, limit in enumerate(self.limits):
            is_acting, side, softness, reference = limit.evaluate(angles[i], rates[i])
            # Change of each w' by a unit torque of the hinge: +1 on its link and -1 on
            # the link before.
            response = [row[i + 1] - row[i] for row in inverse]
            sides.append(side)
            responses.append(response)
            acting.append(is_acting)
            diagonal.append(response[i + 1] - response[i] + softness)
            shortfall.append(reference - side * (turn[i + 1] - turn[i]))
        cross = sides[0] * sides[1] * (responses[0][2] - responses[0][1])
        torque = limit_torques(diagonal, cross, shortfall, acting)
        first, second = sides[0] * torque[0], sides[1] * torque[1]
        return [
            turn[j] + responses[0][j] * first + responses[1][j] * second for j in LINKS
        ]


def _dot(a: Any, b: Any) -> Scalar:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _compute_once(values: list[Scalar], one: Scalar) -> list[Scalar]:
    """The values, divided by a 1 that XLA cannot recognise as a constant.

    On the CPU XLA would recompute a value, and all it depends on, for each of its uses:
    ten times the work. The result of a division it computes once and stores.
    """
    return [value / one for value in values]
