"""Recurrent policies in both drivers: a carry that lives with a particle's episode.

A recurrent policy maps (theta, carry, observation) to (carry, action). Its carry is a
part of the particle's state: it begins anew where an episode begins, it is copied with
the particle and saved with it. For an estimator the policy and the simulation are
together one system, with the state (simulation, carry), so every estimator's statements
hold for it as they stand.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.environment import HostEnvironment, PolicyProblem
from pes_rl.envs.rollout.host import HostRollout

Carry = Any  # a pytree of arrays
InitialCarry = Callable[[], Carry]


@dataclass(frozen=True)
class RecurrentProblem(PolicyProblem):
    """A recurrent policy in a JAX environment, as a problem.

    Its state is ((simulation, carry), observation).

    Attributes:
        act: Maps (theta [D], carry, observation [O]) to (carry, action [A]).
        initial_carry: Returns the carry of one particle at the start of an episode.

    Example:
        >>> from pes_rl.agents import GRUPolicy
        >>> from pes_rl.envs import make
        >>> gru = GRUPolicy(8, (-1.0, -1.0), (1.0, 1.0), hidden_sizes=(4,))
        >>> problem = RecurrentProblem(
        ...     make("jax:swimmer"), gru.act, initial_carry=gru.initial_carry
        ... )
        >>> (simulation, carry), observation = problem.init(jax.random.key(0))
        >>> carry.shape, observation.shape
        ((4,), (8,))
    """

    initial_carry: InitialCarry = field(kw_only=True)

    def init(self, key: jax.Array) -> tuple[Any, jax.Array]:
        simulation, observation = self.environment.reset(key)
        carry = jax.tree.map(jnp.asarray, self.initial_carry())
        return (simulation, carry), observation

    def step(
        self, theta: jax.Array, state: tuple[Any, jax.Array]
    ) -> tuple[Any, jax.Array, jax.Array]:
        (simulation, carry), observation = state
        carry, action = self.act(theta, carry, self.normalize(observation))
        (simulation, observation), loss, ended = self.advance(simulation, action)
        return ((simulation, carry), observation), loss, ended


class CarryingEnvironment:
    """A `HostEnvironment` that also holds the carry of each simulation's policy.

    What it loads and saves is (simulations, carry), with leading axis N in the carry.
    A carry keeps the types of the initial one.

    Args:
        environment: The environment of the simulations.
        initial_carry: Returns the carry of one simulation at the start of an episode.

    Example:
        >>> from pes_rl.envs import make
        >>> pendulum = make("inverted_pendulum", num_threads=1)
        >>> environment = CarryingEnvironment(pendulum, lambda: np.zeros(5, np.float32))
        >>> environment.allocate(2)
        >>> environment.carry_of(None).shape
        (2, 5)
    """

    on_device = False

    def __init__(
        self, environment: HostEnvironment, initial_carry: InitialCarry
    ) -> None:
        self._environment = environment
        self._initial = jax.tree.map(np.asarray, initial_carry())
        self._carry: Carry = None
        self.observation_size = environment.observation_size
        self.action_low = environment.action_low
        self.action_high = environment.action_high
        self.horizon = environment.horizon
        self.can_copy = environment.can_copy

    def allocate(self, num_simulations: int) -> None:
        self._environment.allocate(num_simulations)
        self._carry = jax.tree.map(
            lambda leaf: np.repeat(leaf[None], num_simulations, axis=0), self._initial
        )

    def load(self, state: Any) -> None:
        simulations, carry = state
        self._environment.load(simulations)
        self._carry = jax.tree.map(np.array, carry)  # a copy, written to from here on

    def save(self) -> Any:
        return self._environment.save(), jax.tree.map(np.copy, self._carry)

    def reset(self, ids: np.ndarray, keys: np.ndarray) -> np.ndarray:
        jax.tree.map(_set_rows(ids), self._carry, self._initial)
        return self._environment.reset(ids, keys)

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._environment.step(actions, ids)

    def carry_of(self, ids: np.ndarray | None) -> Carry:
        """Carries of the simulations `ids`; None takes all."""
        if ids is None:
            return self._carry
        return jax.tree.map(lambda leaf: leaf[ids], self._carry)

    def set_carry(self, ids: np.ndarray | None, carry: Carry) -> None:
        """Set the carries of the simulations `ids`, of all for None."""
        jax.tree.map(_set_rows(slice(None) if ids is None else ids), self._carry, carry)


def _set_rows(rows: Any) -> Callable[[np.ndarray, np.ndarray], None]:
    def set_rows(leaf: np.ndarray, values: np.ndarray) -> None:
        leaf[rows] = values

    return set_rows


@dataclass(frozen=True)
class RecurrentHostRollout(HostRollout):
    """Rollout of recurrent policies in a `HostEnvironment`.

    Attributes:
        environment: Holds the simulations and the carries.
        act: Maps (thetas [N, D], carries, observations [N, O]) to (carries, actions
            [N, A]), in NumPy.

    Example:
        >>> from pes_rl.agents import GRUPolicy
        >>> from pes_rl.envs import make
        >>> gru = GRUPolicy(4, (-3.0,), (3.0,), hidden_sizes=(5,))
        >>> pendulum = make("inverted_pendulum", num_threads=1)
        >>> environment = CarryingEnvironment(pendulum, gru.initial_carry)
        >>> rollout = RecurrentHostRollout(environment, gru.act, horizon=1000)
        >>> particles = rollout.reset(jax.random.key(0), num_pairs=1)
        >>> thetas = np.full((2, gru.num_parameters), 0.1, np.float32)
        >>> particles, segment = rollout.unroll(particles, thetas, length=3)
        >>> simulations, carry = particles.state.simulation
        >>> carry.shape
        (2, 5)
    """

    environment: CarryingEnvironment

    def _act(
        self, thetas: np.ndarray, observation: np.ndarray, ids: np.ndarray | None
    ) -> np.ndarray:
        carry = self.environment.carry_of(ids)
        carry, actions = self.act(thetas, carry, self._normalize(observation))
        self.environment.set_carry(ids, carry)
        return actions
