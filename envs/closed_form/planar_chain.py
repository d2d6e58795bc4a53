"""Forward dynamics of MuJoCo's Swimmer, a planar chain in a fluid, in closed form.

The model is a chain of L = 3 links in a plane. Link 0 is free to slide along x and y
and to turn; each further link hangs on its predecessor by one hinge with a motor.
MuJoCo's coordinates are q = (x, y, theta_0, theta_1, theta_2): the point of link 0
that all three of its joints share, its angle, and the angles of the hinges.

Notation. phi_i = theta_0 + ... + theta_i is the absolute angle of link i and w_i its
rate; u_i = (cos phi_i, sin phi_i) points along the link, n_i = (-sin phi_i, cos phi_i)
across it. Link i has mass m_i and, about its centre, inertia I_i.

1. Kinematics. The centre of link i is c_i = p + sum_j B_ij u_j with p = (x, y): B_ii is
   where the centre lies along the link, B_ij for j < i where the next hinge lies along
   link j, and B_ij = 0 for j > i. Hence dc_i/dt = dp/dt + sum_j B_ij w_j n_j.

2. Equations of motion in (p, phi). With M the mass of all links plus the armature of a
   slide, s_j = sum_i m_i B_ij and G_jk = sum_i m_i B_ij B_ik,

       M p'' + sum_j s_j (w_j' n_j - w_j^2 u_j) = sum_i F_i
       s_j n_j.p'' + sum_k (G_jk cos(phi_k - phi_j) + D_jk) w_k'
           = Q_j + N_j + sum_i B_ij n_j.F_i + sum_k G_jk sin(phi_k - phi_j) w_k^2

   D holds the I_j and the armature of the hinges, which acts on w_j - w_{j-1}; Q is the
   motors' torque, F_i and N_i are the fluid's force and torque on link i.

3. Eliminating p'' leaves three equations for w' alone. With H = G - s s^T / M,

       sum_k (H_jk cos(phi_k - phi_j) + D_jk) w_k'
           = Q_j + N_j + sum_i (B_ij - s_j / M) n_j.F_i
             + sum_k H_jk sin(phi_k - phi_j) w_k^2

   and then M p'' = sum_i F_i + sum_j s_j (w_j^2 u_j - w_j' n_j).

4. Fluid (MuJoCo's manual, "Fluid forces", inertia model). Each link stands for a box of
   its mass and inertia, with sides b_u along, b_n across and b_z out of the plane. With
   its centre's velocity (v_u, v_n) in the link's axes, viscosity eta, density rho and d
   the mean of the sides,

       F_u = -3 pi d eta v_u - rho/2 b_n b_z |v_u| v_u    (F_n alike, with b_u b_z)
       N   = -pi d^3 eta w - rho/64 b_z (b_u^4 + b_n^4) |w| w

5. Limits of the hinges: `joint_limits.py`. Only two can act at once, so their torques
   are closed too.

MuJoCo finds the torques of the limits by iteration to a tolerance; all else differs
from it by rounding alone.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jax.numpy as jnp

from pes_rl.envs.closed_form.joint_limits import Limit, least_torques

Scalar = Any  # a JAX scalar or a Python number

LINKS = range(3)


@dataclass(frozen=True)
class Drag:
    """Fluid force -(linear + quadratic |v|) v on each link, for one kind of motion v.

    Attributes:
        linear: From the viscosity. # shape=(3,)
        quadratic: From the density. # shape=(3,)
    """

    linear: list[float]
    quadratic: list[float]

    def __call__(self, link: int, velocity: Scalar) -> Scalar:
        scale = self.linear[link] + self.quadratic[link] * jnp.abs(velocity)
        return -scale * velocity


@dataclass(frozen=True)
class PlanarChain:
    """Swimmer's constants, and the accelerations that follow from them.

    `swimmer_model.read_chain` reads the constants from a compiled model.

    Attributes:
        timestep: MuJoCo's physics step, s.
        gear: Torque of each motor at control 1. # shape=(2,)
        control_range: Where MuJoCo clips the controls, (low, high). # shape=(2, 2)
        lever: B, [link][hinge or centre]; section 1. # shape=(3, 3)
        mass: M, links and armature.
        moment: s. # shape=(3,)
        coupling: H. # shape=(3, 3)
        inertia: D. # shape=(3, 3)
        along, across, turning: The fluid on v_u, v_n and w.
        limits: Of hinges 1 and 2.
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
    """Leading coordinates, x and y, on which no acceleration depends."""

    def acceleration(
        self,
        position: tuple[Scalar, ...],
        velocity: tuple[Scalar, ...],
        control: tuple[Scalar, ...],
    ) -> tuple[Scalar, ...]:
        """d^2 q / dt^2; positions and velocities as MuJoCo's qpos and qvel.

        All are tuples of scalars, so that under `vmap` each is one contiguous array.
        """
        angles = tuple(accumulate(position[2:]))
        rates = tuple(accumulate(velocity[2:]))
        one = 1.0 + 0.0 * velocity[0]
        cos = _stored([jnp.cos(angle) for angle in angles], one)
        sin = _stored([jnp.sin(angle) for angle in angles], one)
        forces, torques = self._fluid(velocity[:2], rates, cos, sin)
        force = tuple(map(sum, zip(*forces, strict=True)))
        inverse = self._inverse_inertia(cos, sin)
        push = self._push(control, forces, force, torques, rates, cos, sin)
        turn = _stored([_dot(row, push) for row in inverse], one)
        turn = _stored(self._limited(turn, inverse, position[3:], velocity[3:]), one)
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

    def _push(
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
        motors, push = (-first, first - second, second), []
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
            push.append(motors[j] + torques[j] + cos[j] * y - sin[j] * x + swing)
        return push

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

    def _limited(
        self,
        turn: list[Scalar],
        inverse: list[tuple[Scalar, ...]],
        angles: tuple[Scalar, ...],
        rates: tuple[Scalar, ...],
    ) -> list[Scalar]:
        """The links' w' with the torques of the limits; section 5."""
        sides, responses, short, yielding, acting = [], [], [], [], []
        for i, limit in enumerate(self.limits):
            on, side, softness, reference = limit.reach(angles[i], rates[i])
            # What a unit torque on the hinge, +1 on its link and -1 on the one before,
            # does to each w'.
            response = [row[i + 1] - row[i] for row in inverse]
            sides.append(side)
            responses.append(response)
            acting.append(on)
            yielding.append(response[i + 1] - response[i] + softness)
            short.append(reference - side * (turn[i + 1] - turn[i]))
        cross = sides[0] * sides[1] * (responses[0][2] - responses[0][1])
        torque = least_torques(yielding, cross, short, acting)
        first, second = sides[0] * torque[0], sides[1] * torque[1]
        return [
            turn[j] + responses[0][j] * first + responses[1][j] * second for j in LINKS
        ]


def _dot(a: Any, b: Any) -> Scalar:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _stored(values: list[Scalar], one: Scalar) -> list[Scalar]:
    """The values, divided by a 1 that XLA does not know to be one.

    XLA on the CPU would compute a value anew for each of its uses, and their uses in
    turn: ten times the work. A division it computes once and stores.
    """
    return [value / one for value in values]
