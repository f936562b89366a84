"""How many rows of a batch may fail before it ends."""

from __future__ import annotations

from dataclasses import dataclass

from eagleray import errors

LEAST = 10_000
"""Rows from which a share is judged before the end."""


@dataclass(frozen=True)
class Limit:
    """The most rows that cannot be predicted: a number of them, or a share of all."""

    count: int | None = None
    share: float = 0.1

    @classmethod
    def parse(cls, text: str) -> Limit:
        """`100` is a number, `5%` a share; UserError for another text."""
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            value = -1.0
        if text.endswith("%") and 0 <= value <= 100:
            return cls(share=value / 100)
        if text.isdecimal():
            return cls(count=int(text))
        law = "must be a number of rows or a share, such as 100 or 5%"
        raise errors.UserError(f"--max-errors: {law}, but got {text!r}")

    def check(self, rows: int, faults: int, example: str, *, ended: bool) -> None:
        """DataError if too many rows fail; a share is judged from `LEAST` rows on."""
        if self.count is not None:
            most, law = self.count, f"{self.count:,} rows"
        elif ended or rows >= LEAST:
            most, law = int(self.share * rows), f"{self.share:.4g} of the rows"
        else:
            return
        if faults > most:
            first = f", such as {example}" if example else ""
            raise errors.DataError(
                f"--max-errors: at most {law} may be impossible to predict, but {faults:,} of"
                f" {rows:,} are{first}; with a higher limit the same command goes on"
            )
