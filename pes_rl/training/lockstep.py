"""Runs that leave what they compute to whoever runs them: alone, or in lock-step.

A run is a generator of computations. `run_alone` does each as it is asked for.
`run_together` takes several runs that differ in their numbers alone, such as the seeds
of an arm, and does what they ask for alike in one program, with a leading axis over the
runs (`jax.vmap`). Matrix products and reductions over such an axis may round otherwise,
so a run's numbers can differ from those of the same run alone in the last bits. The
time that a run says it took is that of all of them.
"""

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")
Steps = Generator[partial[Any], Any, T]
"""Yields what is to be computed, is sent the outcome or thrown its error; gives a T."""


def run_alone(steps: Steps[T]) -> T:
    """Compute each thing as it is asked for."""
    with closing(steps):
        try:
            asked = next(steps)
            while True:
                try:
                    outcome = asked()
                except Exception as error:
                    asked = steps.throw(error)
                else:
                    asked = steps.send(outcome)
        except StopIteration as end:
            return end.value


def run_together(
    runs: Sequence[Steps[T]], traceable: Collection[Callable[..., Any]]
) -> list[T]:
    """Take several runs to their ends in lock-step.

    Runs need not ask for the same at the same time, nor end together: those that ask
    for less wait where they are, and those that have ended leave.

    Args:
        runs: Whose equal computations have arguments of equal shapes.
        traceable: The functions that `jax.vmap` can be applied to; any other is called
            for one run after another.

    Returns:
        What each run gives, in the order of `runs`.
    """
    return _LockStep(runs, traceable).run()


class _LockStep:
    def __init__(
        self, runs: Sequence[Steps[Any]], traceable: Collection[Callable[..., Any]]
    ) -> None:
        self._runs, self._traceable = runs, traceable
        self._asked: dict[int, partial[Any]] = {}
        self._results: dict[int, Any] = {}
        self._compute_batch = jax.jit(_compute_batch, static_argnums=(0, 1))

    def run(self) -> list[Any]:
        with ExitStack() as stack:
            for number, steps in enumerate(self._runs):
                stack.enter_context(closing(steps))
                self._go_on(number, steps.send, None)
            while self._asked:
                self._compute(self._choose())
        return [self._results[number] for number in range(len(self._runs))]

    def _go_on(self, number: int, proceed: Callable[[Any], Any], with_: Any) -> None:
        try:
            self._asked[number] = proceed(with_)
        except StopIteration as end:
            self._asked.pop(number, None)
            self._results[number] = end.value

    def _choose(self) -> list[int]:
        """Runs that ask for the same; the fewest first, so that they catch up."""
        alike: dict[Any, list[int]] = {}
        for number, asked in self._asked.items():
            options = tuple(asked.keywords.items())
            of_its_own = None if asked.func in self._traceable else number
            alike.setdefault((asked.func, options, of_its_own), []).append(number)
        return min(alike.values(), key=len)

    def _compute(self, numbers: list[int]) -> None:
        asked = [self._asked[number] for number in numbers]
        try:
            outcomes = self._outcomes(asked)
        except Exception as error:
            for number in numbers:
                self._go_on(number, self._runs[number].throw, error)
        else:
            for number, outcome in zip(numbers, outcomes, strict=True):
                self._go_on(number, self._runs[number].send, outcome)

    def _outcomes(self, asked: list[partial[Any]]) -> list[Any]:
        if len(asked) == 1:
            return [asked[0]()]
        # Few sizes, for each is compiled: as many as there are runs, half as many, ...
        size = len(self._runs)
        while (size + 1) // 2 >= len(asked):
            size = (size + 1) // 2
        arguments = [one.args for one in asked]
        arguments += [arguments[0]] * (size - len(arguments))
        options = tuple(asked[0].keywords.items())
        return self._compute_batch(asked[0].func, options, arguments)[: len(asked)]


def _compute_batch(
    function: Callable[..., Any],
    options: tuple[tuple[str, Any], ...],
    arguments: list[tuple[Any, ...]],
) -> list[Any]:
    """The function's value for each of the arguments, by one call of it, vmapped."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arguments)
    values = jax.vmap(partial(function, **dict(options)))(*stacked)
    return [
        jax.tree.map(lambda leaf, i=i: leaf[i], values) for i in range(len(arguments))
    ]
