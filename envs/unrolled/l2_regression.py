"""The weight of an L2 penalty in a regression, as in the PES paper's appendix.

The inner problem is linear regression on standardised inputs and targets, by full-batch
gradient descent with learning rate 0.001 on sum(error^2) / 2 + exp(theta) |w|^2 / 2,
from w = 0. The loss of a step is sum(error^2) / 2 on the validation rows after it. The
inner problem never restarts: w follows the optimum for a theta that changes slowly.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_rl.envs.unrolled.problem import UnrolledProblem

RATE = 0.001


@dataclass(frozen=True)
class Table:
    """Training and validation rows; over both, each column has mean 0 and deviation 1.

    Attributes:
        moments: X^T X of the training rows. # shape=(columns, columns)
        targets: X^T y of the training rows. # shape=(columns,)
        validation_inputs: # shape=(rows, columns)
        validation_targets: # shape=(rows,)
    """

    moments: np.ndarray
    targets: np.ndarray
    validation_inputs: np.ndarray
    validation_targets: np.ndarray


@dataclass(frozen=True)
class L2Regression(UnrolledProblem):
    """The logarithm of one penalty.

    The published table is UCI's yacht hydrodynamics, 308 rows of 6 inputs and a target,
    which is not part of this package. Without a file the table is a generated one of
    the same size, in which a linear map of correlated inputs explains 65% of the
    target.

    Attributes:
        table_file: Text file with rows of numbers, the target in the last column.
        first_theta: Initial logarithm; published are 5, 3, 1, -1, -3 and -5.
    """

    table_file: str | None = None
    first_theta: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.table  # Read here, so that a bad file is an error at construction.

    @property
    def table(self) -> Table:
        """The table of the problem."""
        return load_table(self.table_file)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return ("log penalty",)

    def init_theta(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.array([float(self.first_theta)])

    def init(self, key: jax.Array) -> jax.Array:
        del key
        return jnp.zeros(len(self.table.targets))

    def step(
        self, theta: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        w, table = state, self.table
        moments, targets, inputs, outputs = (
            jnp.asarray(array, w.dtype)
            for array in (
                table.moments,
                table.targets,
                table.validation_inputs,
                table.validation_targets,
            )
        )
        w = w - RATE * (moments @ w - targets + jnp.exp(theta) * w)
        loss = 0.5 * jnp.sum((inputs @ w - outputs) ** 2)
        return w, loss, jnp.array(False)

    @property
    def meta_loss(self) -> Literal["last"]:
        return "last"

    @property
    def evaluation_steps(self) -> int:
        """Enough steps for w to converge, except for almost dependent inputs."""
        return 5000

    @property
    def diverged_loss(self) -> float:
        """As large as the losses before a divergence; sums of it are finite."""
        return 1e30


@cache
def load_table(file: str | None) -> Table:
    """The table in a file, or the generated one.

    Raises:
        ValueError: If the file cannot be read as numbers.
    """
    if file is None:
        return split_table(generate_table())
    try:
        rows = np.loadtxt(Path(file), ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"table_file={file!r} cannot be read ({error}); it must have rows of "
            "numbers separated by spaces, the target last"
        ) from error
    if rows.shape[0] < 10 or rows.shape[1] < 2 or rows.std(0).min() == 0:
        raise ValueError(
            f"table_file={file!r} holds {rows.shape[0]} rows of {rows.shape[1]} "
            "numbers; at least 10 rows and 2 columns are needed, none of them constant"
        )
    return split_table(rows)


def split_table(rows: np.ndarray) -> Table:
    """Standardise all rows, then use a random fifth of them for validation."""
    rows = (rows - rows.mean(0)) / rows.std(0)
    rows = np.random.default_rng(1).permutation(rows)
    training, validation = np.split(rows, [len(rows) * 4 // 5])
    inputs, targets = training[:, :-1], training[:, -1]
    return Table(
        moments=inputs.T @ inputs,
        targets=inputs.T @ targets,
        validation_inputs=validation[:, :-1],
        validation_targets=validation[:, -1],
    )


def generate_table(rows: int = 308, columns: int = 6) -> np.ndarray:
    """Correlated normal inputs, and in the last column a linear target with noise."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(columns, columns))
    inputs = generator.normal(size=(rows, columns)) @ mixing
    signal = inputs @ generator.normal(size=columns)
    noise = generator.normal(size=rows) * signal.std() * np.sqrt(0.35 / 0.65)
    return np.column_stack([inputs, signal + noise])
