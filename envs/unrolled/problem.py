"""What a run needs to know of an unrolled computation graph."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.rollout.environment import Problem


@dataclass(frozen=True)
class UnrolledProblem:
    """A system s_t = f(s_{t-1}; theta) with parameters of its own, and no policy.

    The fields are the problem's options. Subclasses give the parameters below, and
    `init` and `step` as `Problem` describes them. An episode begins where theta has
    done nothing yet: an untrained network, a zero hidden state.

    The meta-loss of theta is the mean over fresh episodes, with theta held, of the sum
    of their losses, or of their last loss where `meta_loss` says so. It is what
    evaluations report, as the return: minus the meta-loss.

    Attributes:
        horizon: Steps T of an episode; None for one without an end.
    """

    horizon: int | None = None

    def __post_init__(self) -> None:
        _check_options(self)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Name of each entry of theta, D in all."""
        raise NotImplementedError

    def init_theta(self, key: jax.Array) -> jax.Array:
        """First theta; the key decides what is random in it."""
        raise NotImplementedError

    def init(self, key: jax.Array) -> Any:
        raise NotImplementedError

    def step(self, theta: jax.Array, state: Any) -> tuple[Any, jax.Array, jax.Array]:
        raise NotImplementedError

    @property
    def system(self) -> Problem:
        """What is unrolled: the problem, or its losses in another form."""
        return self

    @property
    def differentiable(self) -> bool:
        """Whether the derivative of the losses by theta says where they fall."""
        return True

    @property
    def meta_loss(self) -> Literal["sum", "last"]:
        """Whether an evaluation sums an episode's losses or takes the last one."""
        return "sum"

    @property
    def evaluation_steps(self) -> int:
        """Steps of an episode of an evaluation."""
        assert self.horizon is not None  # a problem without an end says its own
        return self.horizon

    @property
    def diverged_loss(self) -> float:
        """Loss of the step at which a simulation diverges; the episode ends there.

        A bad one: else parameters that diverge, NaN among them, would count as good.
        """
        raise NotImplementedError


def tensor_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """`NAME[i, j]` for each entry of a tensor, in row order."""
    return [f"{name}{list(place)}" for place in np.ndindex(shape)]


def _check_options(problem: UnrolledProblem) -> None:
    """Raise `ValueError` unless every field has a value of its declared type.

    Whole numbers count something, and are at least 1.
    """
    hints = get_type_hints(type(problem))
    for field in fields(problem):
        value, hint = getattr(problem, field.name), hints[field.name]
        if not _fits(value, hint):
            raise ValueError(f"{field.name}={value!r} must be {_in_words(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(v, int) for v in value)
    if hint is int:
        return type(value) is int and value >= 1
    if hint is float:
        return type(value) in (int, float)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    return any(_fits(value, option) for option in get_args(hint))


def _in_words(hint: Any) -> str:
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
    return words.get(hint) or " or ".join(map(_in_words, get_args(hint)))


@dataclass(frozen=True)
class FinalLoss:
    """A problem whose losses telescope: an episode's sum is its last loss.

        loss_t = L_t - L_{t-1},  L_0 = 0

    with L_t the loss of the problem inside, which should measure the same thing at
    every step (a fixed minibatch, say). Every estimator then sees the final loss in
    partial unrolls, unchanged.

    The released code for PES telescopes in the estimator: it weights an unroll by
    L_t xi_t - L_{t-1} xi_{t-1}, t being the unroll's end. That is PES on this problem
    plus L_{t-1} e_t, whose mean is 0, since e_t is new. Over an episode the released
    weights sum to L_T xi_T and those here to sum_t (L_T - L_{t-1}) e_t, in which the
    loss before an unroll is a baseline for what its perturbation brings. So there is
    less noise here where what an unroll did to the loss lasts, and more where the next
    one undoes it: with four unrolls and three parameters 34 to 64 at one end and 20 to
    13 at the other (in closed form and measured:
    `tests/envs/unrolled/test_final_loss.py`).

    Attributes:
        problem: The problem inside.
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
        inside, before = state
        inside, loss, ended = self.problem.step(theta, inside)
        return (inside, loss), loss - before, ended
