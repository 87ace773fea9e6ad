"""The error for a method that raises or returns something invalid, naming method and image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class MethodError(ValueError):
    """What a method did wrong.

    row  the row of the batch that causes the error; None if no single row does, or if the message
         already names the image
    """

    def __init__(self, problem: str, row: int | None = None) -> None:
        super().__init__(problem)
        self.row = row


@contextmanager
def blamed(whose: Callable[[int | None], str]) -> Iterator[None]:
    """Put `whose(row)` before the message of a MethodError from the block, and keep its cause."""
    try:
        yield
    except MethodError as error:
        raise MethodError(f"{whose(error.row)}: {error}") from error.__cause__


def said(error: Exception) -> str:
    """The message of an exception, after its type unless it is a ValueError, a method's refusal."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
