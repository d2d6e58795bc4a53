"""The interface of unrolled computation graphs, and their form with a final loss."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.environment import Problem


@dataclass(frozen=True)
class UnrolledProblem:
    """A system s_t = f(s_{t-1}; theta) whose parameters theta are not a policy's.

    The fields are the problem's options. Subclasses define the properties below, and
    `init` and `step` as in `Problem`. An episode starts from a state on which theta has
    had no effect: an untrained network or a zero hidden state, for example.

    The meta-loss of theta is the mean over new episodes, with a constant theta, of the
    sum of their losses, or of their last loss where `meta_loss` is "last". The return
    that evaluations report is minus the meta-loss.

    Attributes:
        horizon: Steps T of an episode; None for an episode that never ends.

    Example:
        >>> @dataclass(frozen=True)
        ... class StepSize(UnrolledProblem):
        ...     horizon: int = 10
        ...     parameter_names = ("step size",)
        ...     diverged_loss = 1e6
        ...
        ...     def init_theta(self, key):
        ...         return jnp.zeros(1)
        ...
        ...     def init(self, key):
        ...         return jnp.float32(1)
        ...
        ...     def step(self, theta, x):
        ...         x = x - theta[0] * x
        ...         return x, x**2, jnp.array(False)
        >>> x, loss, ended = StepSize().step(jnp.array([0.5]), jnp.float32(1))
        >>> float(x), float(loss)
        (0.5, 0.25)
    """

    horizon: int | None = None

    def __post_init__(self) -> None:
        _check_options(self)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Name of each entry of theta, D in all."""
        raise NotImplementedError

    def init_theta(self, key: jax.Array) -> jax.Array:
        """Initial theta; the key decides its random part."""
        raise NotImplementedError

    def init(self, key: jax.Array) -> Any:
        raise NotImplementedError

    def step(self, theta: jax.Array, state: Any) -> tuple[Any, jax.Array, jax.Array]:
        raise NotImplementedError

    @property
    def search_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lowest and highest theta [D] of random search, where it has such of its own.

        None for a range around the initial theta, of `search_radius`.
        """
        return None

    @property
    def system(self) -> Problem:
        """The problem that is unrolled: this one, or this one with other losses."""
        return self

    @property
    def differentiable(self) -> bool:
        """Whether the derivatives of the losses with respect to theta are useful."""
        return True

    @property
    def meta_loss(self) -> Literal["sum", "last"]:
        """Whether an evaluation sums an episode's losses or takes the last one."""
        return "sum"

    @property
    def evaluation_steps(self) -> int:
        """Steps of an episode in an evaluation."""
        assert self.horizon is not None  # else the subclass defines this property
        return self.horizon

    @property
    def diverged_loss(self) -> float:
        """Loss of the step at which a simulation diverges; the episode ends there.

        It must be high, so that parameters which diverge, NaN among them, count as bad.
        """
        raise NotImplementedError


def tensor_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """`NAME[i, j]` for each entry of a tensor, in row order."""
    return [f"{name}{list(place)}" for place in np.ndindex(shape)]


def _check_options(problem: UnrolledProblem) -> None:
    """Raise `ValueError` unless every field has a value of its declared type.

    All whole numbers here are counts, and must be at least 1.
    """
    hints = get_type_hints(type(problem))
    for field in fields(problem):
        value, hint = getattr(problem, field.name), hints[field.name]
        if not _has_type(value, hint):
            raise ValueError(f"{field.name}={value!r} must be {_describe(hint)}")


def _has_type(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_has_type(v, int) for v in value)
    if hint is int:
        return type(value) is int and value >= 1
    if hint is float:
        return type(value) in (int, float)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    return any(_has_type(value, option) for option in get_args(hint))


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of: " + ", ".join(get_args(hint))
    if get_origin(hint) is tuple:
        return "a list of whole numbers of at least 1"
    words = {
        int: "a whole number of at least 1",
        float: "a number",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return words.get(hint) or " or ".join(map(_describe, get_args(hint)))


@dataclass(frozen=True)
class FinalLoss:
    """A problem whose losses sum to the last loss of another problem.

        loss_t = L_t - L_{t-1},  L_0 = 0

    with L_t the loss of the other problem, which should measure the same thing at every
    step (on a fixed minibatch, for example). Every estimator then estimates the
    gradient of the final loss from partial unrolls. `docs/final_loss.md` compares this
    with the released code of the PES paper.

    Attributes:
        problem: The other problem.

    Example:
        >>> from pes_rl.envs import make
        >>> problem, theta = make("unrolled:toy-regression"), jnp.array([-4.0, -4.0])
        >>> whole = FinalLoss(problem)
        >>> state, total = whole.init(jax.random.key(0)), 0.0
        >>> for _ in range(3):
        ...     state, loss, ended = whole.step(theta, state)
        ...     total += float(loss)
        >>> round(total, 4) == round(float(state[1]), 4)  # the loss after three steps
        True
    """

    problem: Problem

    @property
    def differentiable(self) -> bool:
        return getattr(self.problem, "differentiable", True)

    def init(self, key: jax.Array) -> tuple[Any, jax.Array]:
        return self.problem.init(key), jnp.float32(0)

    def step(
        self, theta: jax.Array, state: tuple[Any, jax.Array]
    ) -> tuple[Any, jax.Array, jax.Array]:
        inner, before = state
        inner, loss, ended = self.problem.step(theta, inner)
        return (inner, loss), loss - before, ended
