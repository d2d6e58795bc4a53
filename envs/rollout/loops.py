"""Loops and conditions in JAX that skip work, also where several runs are vmapped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_batching.custom_vmap
def any_of_all_runs(mask: jax.Array) -> jax.Array:
    """Whether any entry is set; under `vmap`, whether any entry of any run is set.

    A vmapped loop then has one condition for all runs. With a condition for each run,
    JAX would select between the old and the new carry of each run at every step.
    """
    return jnp.any(mask)


@any_of_all_runs.def_vmap
def _any_of_batch(size: int, batched: list[bool], mask: jax.Array) -> tuple[Any, bool]:
    del size, batched
    return any_of_all_runs(mask), False


def apply_if(
    condition: jax.Array,
    change: Callable[[Any], Any],
    tree: Any,
    reverse_mode: bool = False,
) -> Any:
    """`change(tree)` if the condition holds, else `tree`.

    A loop of at most one step does not copy an unchanged tree, as `lax.cond` does at
    the cost of a few percent of a step; but it has no reverse mode. Where several runs
    are vmapped, the change is applied to all of them if the condition holds for any; so
    `change` must not affect the results of a run whose condition does not hold.

    Args:
        condition: A bool scalar.
        change: Maps the tree to one of the same structure, shapes and dtypes.
        tree: Any pytree.
        reverse_mode: Use `lax.cond`, which JAX can differentiate in reverse mode.
    """
    if reverse_mode:
        return lax.cond(condition, change, lambda tree: tree, tree)
    return lax.while_loop(
        lambda carry: carry[0],
        lambda carry: (jnp.zeros((), bool), change(carry[1])),
        (any_of_all_runs(condition), tree),
    )[1]


def scan_while(
    keep_going: Callable[[Any], jax.Array | None],
    step: Callable[[Any, jax.Array], tuple[Any, Any]],
    carry: Any,
    length: int,
) -> tuple[Any, Any]:
    """`lax.scan(step)` over steps 0 to `length` - 1 that can stop early.

    Args:
        keep_going: Maps the carry to a bool scalar, False to stop; or to None, where
            all steps are to be taken.
        step: Maps (carry, number of the step) to (carry, output).
        carry: The first carry.
        length: Steps K.

    Returns:
        The last carry and the outputs, stacked; those of steps not taken are zero.
    """
    # Traced once for the shapes of its outputs and for the loop.
    step = jax.jit(step, inline=True)
    output = jax.eval_shape(step, carry, jnp.int32(0))[1]
    zeros = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), output)

    def is_unfinished(loop: tuple[jax.Array, Any, Any]) -> jax.Array:
        k, carry, _ = loop
        steps_left, going = k < length, keep_going(carry)
        return steps_left if going is None else steps_left & going

    def body(loop: tuple[jax.Array, Any, Any]) -> tuple[jax.Array, Any, Any]:
        k, carry, outputs = loop
        carry, output = step(carry, k)
        outputs = jax.tree.map(lambda all, one: all.at[k].set(one), outputs, output)
        return k + 1, carry, outputs

    first = (jnp.int32(0), carry, zeros)
    _, carry, outputs = lax.while_loop(is_unfinished, body, first)
    return carry, outputs
