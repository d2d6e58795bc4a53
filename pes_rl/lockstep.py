"""Runs that leave what they compute to whoever runs them, alone or in lock-step."""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Generator[Callable[[], Any], Any, T]
"""Yields what is to be computed, is sent the outcome or thrown its error; gives a T."""


def run_alone(steps: Steps[T]) -> T:
    """Compute each thing as it is asked for."""
    with closing(steps):
        try:
            compute = next(steps)
            while True:
                try:
                    outcome = compute()
                except Exception as error:
                    compute = steps.throw(error)
                else:
                    compute = steps.send(outcome)
        except StopIteration as end:
            return end.value
