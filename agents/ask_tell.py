"""Ask and tell: estimators for simulators that are not stepped by this package.

    ask_tell = AskTell(PES(50, 10, 0.1), theta, horizon=100)
    repeat:
        request = ask_tell.ask(theta)
        losses, ended = K steps of your simulators under request.thetas
        gradient, report = ask_tell.tell(losses, ended)
        theta = theta - learning_rate * gradient

The estimators run here as they are, on a rollout whose `unroll` hands out parameters
and takes losses. `ask` traces an estimate for the parameters alone, and `tell` computes
the same estimate with the losses.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.agents.core.estimator import Estimator
from pes_rl.agents.core.report import Report
from pes_rl.envs.rollout.base import Rollout
from pes_rl.envs.rollout.episodes import check_horizon, episode_keys, episode_seeds
from pes_rl.envs.rollout.external import ExternalRollout


@dataclass(frozen=True)
class UnrollRequest:
    """The unroll that an estimate needs: K steps under each of M parameter vectors.

    Row i starts from a copy of your simulation `source[i]`, or from a new episode where
    `begins[i]`. The last row that names a simulation is what this simulation becomes.

    For pes, gpes, nres, es and ars, M = N and row i is simulation i. For truncated-es
    there is one simulation: all M = N + 1 rows start from it, and the last one, which
    runs under theta itself, is kept.

    Attributes:
        thetas: Parameters of each row. # shape=(M, D), dtype=float32
        length: Steps K to simulate; those after the end of an episode are ignored.
        source: Simulation that each row starts from. # shape=(M,), dtype=int32
        begins: Whether the row begins a new episode. # shape=(M,), dtype=bool
        keys: Data of a key that decides all randomness of the row's episode, the same
            for the two members of a pair. # shape=(M, 2), dtype=uint32
    """

    thetas: np.ndarray
    length: int
    source: np.ndarray
    begins: np.ndarray
    keys: np.ndarray

    @property
    def seeds(self) -> np.ndarray:
        """Seeds below 2^31 of the rows' episodes. # shape=(M,), dtype=int64."""
        return episode_seeds(self.keys)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AskTellState:
    """State between two updates: plain arrays that can be saved.

    Attributes:
        estimator: State of the estimator.
        key: Key data of all perturbations. # shape=(2,), dtype=uint32
        updates: Updates so far. # shape=(), dtype=int32
    """

    estimator: Any
    key: jax.Array
    updates: jax.Array


class AskTell:
    """An estimator that asks for unrolls and is told their losses.

    Any estimator that needs no derivatives. Particles wait where an episode ends
    (`restart_at_once` is refused). An episode ends where `ended` says so, where a loss
    is not finite (it has diverged; the loss becomes `diverged_loss`), and after its
    time limit, `horizon` or less if the estimator staggers. The next request says which
    rows begin a new episode, so simulators need no time limit of their own.

    Args:
        estimator: `PES(...)`, for example.
        theta: Mean parameters; most estimators use only their number. # shape=(D,)
        horizon: Time limit T of an episode, in steps; None for no limit.
        seed: Seed of all perturbations and of the episodes' keys.
        diverged_loss: Loss of the step at which a simulation diverges.

    Attributes:
        state: `AskTellState`. A new object with the same arguments continues from it
            with the same bits; where it was saved between `ask` and `tell`, with the
            same `ask`.

    Raises:
        ValueError: If the estimator cannot run like this.

    >>> from pes_rl.agents import PES
    >>> theta = np.zeros(3, np.float32)
    >>> ask_tell = AskTell(PES(4, 10, 0.1), theta, horizon=100)
    >>> request = ask_tell.ask(theta)
    >>> request.thetas.shape, request.length, bool(request.begins.all())
    ((8, 3), 10, True)
    >>> losses = np.tile((request.thetas**2).sum(1), (10, 1))
    >>> gradient, report = ask_tell.tell(losses, np.zeros((10, 8), bool))
    >>> gradient.shape, int(report.env_steps)
    ((3,), 80)
    """

    def __init__(
        self,
        estimator: Estimator,
        theta: Any,
        horizon: int | None = None,
        seed: int = 0,
        diverged_loss: float = 0.0,
    ) -> None:
        if getattr(estimator, "restart_at_once", False):
            raise ValueError(
                "restart_at_once begins episodes within an unroll, which ask and tell "
                "cannot; use restart_at_once=False"
            )
        check_horizon(horizon)
        if not np.size(theta):
            raise ValueError("theta has no numbers; it must be a flat vector of some")
        self._estimator = estimator
        self._horizon, self._diverged_loss = horizon, diverged_loss
        self._compiled_ask = jax.jit(self._ask)
        self._compiled_tell = jax.jit(self._tell)
        self._asked: tuple[jax.Array, UnrollRequest] | None = None
        self._num_parameters = np.size(theta)
        start_key, key = jax.random.split(jax.random.key(seed))
        first = estimator.init(self._rollout(), self._vector(theta), start_key)
        # Every leaf an array, of NumPy's or JAX's, as after an update.
        self._state = AskTellState(
            jax.tree.map(jnp.asarray, first), jax.random.key_data(key), jnp.int32(0)
        )

    @property
    def state(self) -> AskTellState:
        return self._state

    @state.setter
    def state(self, state: AskTellState) -> None:
        if _shapes(state) != _shapes(self._state):
            raise ValueError(
                "this state has other arrays than this estimator's; use the state of "
                "an AskTell that was made with the same arguments"
            )
        self._state, self._asked = jax.tree.map(jnp.asarray, state), None

    def ask(self, theta: Any) -> UnrollRequest:
        """The unroll that the next estimate needs.

        Args:
            theta: Mean parameters. # shape=(D,)

        Raises:
            ValueError: If theta has another shape.
        """
        vector = self._vector(theta)
        thetas, length, source, clock = self._compiled_ask(vector, self._state)
        request = UnrollRequest(
            thetas=np.asarray(thetas),
            length=int(length),
            source=np.asarray(source),
            begins=np.asarray(clock.elapsed == 0),
            keys=np.asarray(episode_keys(clock.seed, clock.episode)),
        )
        self._asked = vector, request
        return request

    def tell(self, losses: Any, ended: Any) -> tuple[jax.Array, Report]:
        """The gradient estimate from the losses of the unroll last asked for.

        Args:
            losses: Loss of each step and row; minus the reward, for example. What
                stands after the end of a row's episode is ignored. # shape=(K, M)
            ended: Whether the simulator ended the episode with this step.
                # shape=(K, M), dtype=bool

        Returns:
            (gradient of the loss [D], report).

        Raises:
            ValueError: If nothing was asked, or a shape or dtype is wrong.
        """
        if self._asked is None:
            raise ValueError(
                "tell needs the losses of an unroll; call ask(theta) first"
            )
        theta, request = self._asked
        shape = request.length, len(request.thetas)
        losses, ended = np.asarray(losses), np.asarray(ended)
        for name, array in (("losses", losses), ("ended", ended)):
            if array.shape != shape:
                raise ValueError(
                    f"{name} has the shape {array.shape}; it must be {shape}: a row "
                    "for each step, a column for each row of the request's thetas"
                )
        if losses.dtype.kind not in "fiu" or ended.dtype != bool:
            raise ValueError(
                f"losses are {losses.dtype} and ended {ended.dtype}; they must be "
                "real numbers and bool"
            )
        with np.errstate(over="ignore"):  # What overflows has diverged.
            told = losses.astype(np.float32), ended
        gradient, self._state, report = self._compiled_tell(theta, self._state, *told)
        self._asked = None
        return gradient, report

    def _vector(self, theta: Any) -> jax.Array:
        vector = jnp.asarray(theta, jnp.float32)
        if vector.shape != (self._num_parameters,):
            raise ValueError(
                f"theta has the shape {vector.shape}; it must be a flat vector of "
                f"{self._num_parameters} numbers"
            )
        return vector

    def _rollout(
        self, told: tuple[jax.Array, jax.Array] | None = None
    ) -> ExternalRollout:
        return ExternalRollout(self._horizon, self._diverged_loss, told)

    def _estimate(self, rollout: Rollout, theta: jax.Array, state: AskTellState) -> Any:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.updates)
        return self._estimator.estimate(rollout, theta, state.estimator, key)

    def _ask(self, theta: jax.Array, state: AskTellState) -> Any:
        """(thetas, length, source, clock) of all unrolls of an estimate, as one."""
        rollout = self._rollout()
        self._estimate(rollout, theta, state)
        particles, thetas, lengths = zip(*rollout.asked, strict=True)
        assert len(set(lengths)) == 1  # It is one batch for the simulators.
        together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *particles)
        return jnp.concatenate(thetas), lengths[0], together.state, together.clock

    def _tell(
        self,
        theta: jax.Array,
        state: AskTellState,
        losses: jax.Array,
        ended: jax.Array,
    ) -> tuple[jax.Array, AskTellState, Report]:
        rollout = self._rollout((losses, ended))
        gradient, estimator, report = self._estimate(rollout, theta, state)
        return gradient, AskTellState(estimator, state.key, state.updates + 1), report


def _shapes(state: Any) -> Any:
    leaves, structure = jax.tree.flatten(state)
    return structure, [(np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves]
