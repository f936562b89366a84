"""Durations: `1h30m` in a file or a request, seconds in a model."""

import re
from typing import Any

from eagleray.learn import columns, features
from eagleray.learn.columns import numeric

WRITTEN = r"(?=.)(\d+h)?(\d+m)?(\d+s)?"


class Duration(columns.NumberKind):
    """A column in which every text is hours, minutes and seconds; a number is seconds."""

    name, need = "duration", "a duration such as 1h30m"
    options = numeric.Options
    is_ordered = True

    def infer(self, texts: columns.Distinct, *, named: bool) -> columns.Guess | None:
        fits = all(re.fullmatch(WRITTEN, text) for text in texts.counts)
        return columns.Guess() if fits else None

    def read(self, column: columns.Column, value: Any) -> float:
        if not isinstance(value, str):
            return float(value)
        match = re.fullmatch(WRITTEN, value.strip())
        if match is None:
            raise ValueError("no duration")
        hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in match.groups())
        return float(hours * 3600 + minutes * 60 + seconds)

    def encoding(self, options: Any) -> features.Encoding:
        number: features.Number = options.number
        return number

    def openapi(self, column: columns.Column) -> dict[str, Any]:
        return {"oneOf": [{"type": "number"}, {"type": "string", "pattern": f"^{WRITTEN}$"}]}


def register() -> None:
    """Add the kind."""
    columns.register(Duration())
