"""Several runs in one program: the seeds of an arm computed together by `jax.vmap`.

A run is a generator that yields each computation and is sent its value. `run_alone`
executes the computations of one run one by one. `run_together` takes several runs that
differ in their numbers only, such as seeds, and executes equal computations of them in
one vmapped call. Matrix products and reductions may round differently there, so the
numbers of a run can differ in the last bits from those of the same run alone. The time
that each run reports is that of all of them.
"""

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")
Steps = Generator[partial[Any], Any, T]
"""Yields computations, is sent each value (or thrown its error), and returns a T."""


def run_alone(steps: Steps[T]) -> T:
    """Execute the computations of one run, one by one; returns its result."""
    with closing(steps):
        try:
            request = next(steps)
            while True:
                try:
                    value = request()
                except Exception as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(value)
        except StopIteration as end:
            return end.value


def run_together(
    runs: Sequence[Steps[T]], traceable: Collection[Callable[..., Any]]
) -> list[T]:
    """Execute several runs to their ends, equal computations of them together.

    Runs may request different computations at different times and end at different
    times: while a group of runs computes, the others wait.

    Args:
        runs: Equal computations of them must have arguments of equal shapes.
        traceable: The functions that `jax.vmap` can be applied to; any other is called
            for one run after the other.

    Returns:
        The results of the runs, in the order of `runs`.
    """
    return _LockStep(runs, traceable).run()


class _LockStep:
    def __init__(
        self, runs: Sequence[Steps[Any]], traceable: Collection[Callable[..., Any]]
    ) -> None:
        self._runs, self._traceable = runs, traceable
        self._requests: dict[int, partial[Any]] = {}
        self._results: dict[int, Any] = {}
        self._compute_batch = jax.jit(_compute_batch, static_argnums=(0, 1))

    def run(self) -> list[Any]:
        with ExitStack() as stack:
            for number, steps in enumerate(self._runs):
                stack.enter_context(closing(steps))
                self._advance(number, steps.send, None)
            while self._requests:
                self._compute(self._choose())
        return [self._results[number] for number in range(len(self._runs))]

    def _advance(self, number: int, resume: Callable[[Any], Any], value: Any) -> None:
        try:
            self._requests[number] = resume(value)
        except StopIteration as end:
            self._requests.pop(number, None)
            self._results[number] = end.value

    def _choose(self) -> list[int]:
        """The smallest group of runs with equal requests, so that they catch up."""
        groups: dict[Any, list[int]] = {}
        for number, requested in self._requests.items():
            options = tuple(requested.keywords.items())
            own_group = None if requested.func in self._traceable else number
            groups.setdefault((requested.func, options, own_group), []).append(number)
        return min(groups.values(), key=len)

    def _compute(self, numbers: list[int]) -> None:
        requested = [self._requests[number] for number in numbers]
        try:
            values = self._values(requested)
        except Exception as error:
            for number in numbers:
                self._advance(number, self._runs[number].throw, error)
        else:
            for number, value in zip(numbers, values, strict=True):
                self._advance(number, self._runs[number].send, value)

    def _values(self, requested: list[partial[Any]]) -> list[Any]:
        if len(requested) == 1:
            return [requested[0]()]
        # Each batch size is compiled, so there are few: all runs, half of them, ...
        size = len(self._runs)
        while (size + 1) // 2 >= len(requested):
            size = (size + 1) // 2
        arguments = [one.args for one in requested]
        arguments += [arguments[0]] * (size - len(arguments))
        options = tuple(requested[0].keywords.items())
        return self._compute_batch(requested[0].func, options, arguments)[
            : len(requested)
        ]


def _compute_batch(
    function: Callable[..., Any],
    options: tuple[tuple[str, Any], ...],
    arguments: list[tuple[Any, ...]],
) -> list[Any]:
    """The values of the function for all arguments, by one vmapped call."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arguments)
    values = jax.vmap(partial(function, **dict(options)))(*stacked)
    return [
        jax.tree.map(lambda leaf, i=i: leaf[i], values) for i in range(len(arguments))
    ]
