"""Optional changes of a gradient estimate that make it biased but more robust."""

from typing import Any

import jax
import jax.numpy as jnp


@jax.jit
def normalize_by_return_std(
    gradient: jax.Array,
    particle_loss: jax.Array,
    sigma: Any,
    shaped_std: jax.Array | None = None,
) -> jax.Array:
    """Gradient divided by the standard deviation of the returns, the step of ARS V1.

        2 sigma / std(L) * gradient  =  1 / (P std(L)) sum_i (xi_i / sigma) L_i

    (for PES; for ES with e_i in place of xi_i), which with plain SGD is the update of
    Mania, Guy, Recht 2018 (Algorithm 1, V1) and of the PES paper's Swimmer code: P is
    the number of pairs, and std the population's.

    Effect on the bias: std(L) is a positive random number that depends on the same
    losses, so the result is not an unbiased estimate of any gradient. In one update the
    direction is that of the estimate; over many updates, those in which returns differ
    little have more weight. A population with equal returns gives zero.

    Args:
        gradient: An estimate. # shape=(D,)
        particle_loss: Losses L_i that it was made from. # shape=(N,)
        sigma: Standard deviation of the perturbations.
        shaped_std: What takes the place of std(L) where losses are shaped, 0 where all
            are equal; see `Report.loss_std`.

    Example:
        >>> gradient, loss = jnp.array([4.0]), jnp.array([1.0, 3.0])  # std(L) = 1
        >>> normalize_by_return_std(gradient, loss, sigma=0.5).tolist()
        [4.0]
    """
    if shaped_std is not None:
        has_spread = shaped_std > 0
        factor = 2 * sigma / jnp.where(has_spread, shaped_std, 1.0)
        return jnp.where(has_spread, factor, 0.0) * gradient
    # Not std > 0: the std of equal numbers need not be 0, because their mean rounds.
    differ = particle_loss.max() > particle_loss.min()
    std = jnp.where(differ, jnp.std(particle_loss), 1.0)
    return jnp.where(differ, 2 * sigma / std, 0.0) * gradient
