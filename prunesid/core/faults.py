"""The error for a method that raises or gives what none may give, by name of method and image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class MethodError(ValueError):
    """What a method did wrong.

    row  the row of its batch that brings it about; None if all do, or once the row has a name
    """

    def __init__(self, problem: str, row: int | None = None) -> None:
        super().__init__(problem)
        self.row = row


@contextmanager
def blamed(whose: Callable[[int | None], str]) -> Iterator[None]:
    """Put `whose(row)` before the message of a MethodError; its cause stays its only cause."""
    try:
        yield
    except MethodError as error:
        raise MethodError(f"{whose(error.row)}: {error}") from error.__cause__


def said(error: Exception) -> str:
    """The message of what a method raised, with its type unless that is how methods refuse."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
