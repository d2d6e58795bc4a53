"""The interface of a gradient estimator, and the options and checks that several share.

Symbols: theta [D] the mean parameters, sigma the perturbations' standard deviation,
epsilon a unit normal draw, N = 2P particles in P antithetic pairs, K steps in a partial
unroll, T steps in the longest episode.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax

from pes_rl.agents.core.report import Report
from pes_rl.envs.rollout.base import Rollout


class Estimator(Protocol):
    """A gradient estimator: a frozen configuration with two pure functions.

    On a device rollout both can be jitted, vmapped and scanned. The step along the
    gradient is the optimiser's. The configuration's fields are the agent's options;
    those without a default are required.
    """

    def max_steps(self, horizon: int | None) -> int:
        """Environment steps that one estimate simulates, at most."""
        ...

    def init(self, rollout: Rollout, theta: jax.Array, key: jax.Array) -> Any:
        """State before the first estimate.

        Raises:
            ValueError: If the estimator cannot run on this rollout.
        """
        ...

    def estimate(
        self, rollout: Rollout, theta: jax.Array, state: Any, key: jax.Array
    ) -> tuple[jax.Array, Any, Report]:
        """One estimate of the gradient of the loss; an optimiser minimises the loss.

        Args:
            rollout: The rollout that `state` belongs to.
            theta: Mean parameters. # shape=(D,)
            state: From `init` or the estimate before.
            key: Random key of this estimate, to be used once.

        Returns:
            (gradient [D], state, report).
        """
        ...


@runtime_checkable
class PerturbingEstimator(Estimator, Protocol):
    """An estimator that perturbs theta, with antithetic pairs of particles."""

    @property
    def num_pairs(self) -> int: ...

    @property
    def sigma(self) -> Any:
        """Standard deviation of the perturbations, one for all parameters.

        A schedule replaces it by `dataclasses.replace(estimator, sigma=...)` with a
        traced scalar.
        """
        ...


@dataclass(frozen=True)
class PartialUnrollEstimator:
    """Options of the estimators that run perturbed particles K steps at a time.

    Attributes:
        num_pairs: Antithetic pairs P; N = 2P particles.
        truncation_length: Steps K of a partial unroll, at most the horizon T.
        sigma: Standard deviation of the perturbations.
    """

    num_pairs: int
    truncation_length: int
    sigma: Any

    def __post_init__(self) -> None:
        check_population(self.num_pairs, self.sigma)
        check_truncation_length(self.truncation_length, None)

    def max_steps(self, horizon: int | None) -> int:
        del horizon
        return 2 * self.num_pairs * self.truncation_length


def check_population(num_pairs: int, sigma: Any) -> None:
    """Raise `ValueError` unless there is at least one pair and sigma is positive.

    A sigma that is an array comes from a schedule and is not checked.
    """
    if num_pairs < 1:
        raise ValueError(
            f"num_pairs={num_pairs} must be at least 1 (two particles); "
            "use 10, for example"
        )
    if isinstance(sigma, int | float) and not sigma > 0:
        raise ValueError(f"sigma={sigma} must be above 0; use 0.1, for example")


def check_truncation_length(truncation_length: int, horizon: int | None) -> None:
    """Raise `ValueError` unless 1 <= K <= T."""
    if truncation_length < 1:
        raise ValueError(
            f"truncation_length={truncation_length} must be at least 1 step; "
            "use 100, for example"
        )
    if horizon is not None and truncation_length > horizon:
        raise ValueError(
            f"truncation_length={truncation_length} is longer than the horizon of "
            f"{horizon} steps; use {horizon} or less"
        )


def check_trace_decay(trace_decay: float) -> None:
    """Raise `ValueError` unless 0 <= lambda <= 1."""
    if not 0 <= trace_decay <= 1:
        raise ValueError(
            f"trace_decay={trace_decay} must be between 0 and 1; use 1.0 for PES, or "
            "0.8, for example"
        )


def check_whole_episodes(agent: str, horizon: int | None) -> None:
    """Raise `ValueError` unless episodes have a time limit, which `agent` needs."""
    if horizon is None:
        raise ValueError(
            f"{agent} plays whole episodes, and here they have no end; "
            "use pes or truncated-es, or set a horizon"
        )
