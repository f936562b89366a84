"""Problems of data, gathered so that all of them are told at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from eagleray import errors


class Faults:
    """What steps that do not need each other have complained about."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep the problems of a DataError that the block raises, and go on."""
        try:
            yield
        except errors.DataError as error:
            self.problems += error.problems

    def settle(self) -> None:
        """Raise one DataError of all problems, if there are any."""
        if self.problems:
            raise errors.DataError(*dict.fromkeys(self.problems))
