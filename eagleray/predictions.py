"""Predictions for the rows of a table, without a server: an answer or an error for each."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import errors
from eagleray.names import near

if TYPE_CHECKING:
    import pandas as pd

    from eagleray.bundle import Bundle
    from eagleray.learn import tasks
    from eagleray.learn.schema import Columns, Raw

Row = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """The endpoint's answer for each row of a table, with the same keys for all.

    Attributes:
        rows: the answers; `error` is `row N: reason` for an invalid row, with N from 1.
        repeated: columns of the table that stand beside the answers.
    """

    rows: list[Row]
    repeated: Mapping[str, Raw]
    task: tasks.Task

    @property
    def faults(self) -> list[str]:
        return [row["error"] for row in self.rows if row["error"]]

    def documents(self) -> Iterator[Row]:
        """JSON objects, one per row, the repeated columns first."""
        for number, row in enumerate(self.rows):
            yield {**self._repeated_cells(number, row), **row}

    def table(self) -> pd.DataFrame:
        """The answers as a table, whose columns do not depend on the rows."""
        import pandas as pd

        heading = [*self.task.flat(self.task.blank), "warnings", "error"]
        flat = []
        for number, row in enumerate(self.rows):
            ends = {"warnings": "; ".join(row["warnings"]), "error": row["error"]}
            flat.append({**self._repeated_cells(number, heading), **self.task.flat(row), **ends})
        repeated = [renamed(name, heading) for name in self.repeated]
        return pd.DataFrame(flat, columns=[*repeated, *heading])

    def _repeated_cells(self, number: int, taken: Container[str]) -> Row:
        return {renamed(name, taken): _cell(raw[number]) for name, raw in self.repeated.items()}


def predict(
    model: Bundle, frame: pd.DataFrame, *, repeated: Sequence[str] = (), first: int = 1
) -> Answers:
    """Predict the valid rows, give the others an `error`; `first` is the number of the first row.

    DataError if a column is absent, ServingError where an output is not finite.
    """
    from eagleray.learn import schema
    from eagleray.tabular import load

    raw, beside = load.table(frame), list(dict.fromkeys(repeated))
    check_names(list(raw), [*(column.name for column in model.schema.columns), *beside])
    columns, faults = schema.parse_rows(model.schema, raw)
    answers: Iterator[Row] = iter(())
    if len(faults) < len(frame):
        answers = _answers(model, columns)
    blank = {**model.task.blank, "warnings": [], "error": None}
    rows = [
        {**blank, "error": f"row {first + row}: {faults[row]}"}
        if row in faults
        else {**blank, **next(answers)}
        for row in range(len(frame))
    ]
    return Answers(rows, {name: raw[name] for name in beside}, model.task)


def check_names(known: Sequence[str], needed: Sequence[str]) -> None:
    """DataError if a column of the model, or one to repeat, is absent."""
    absent = [name for name in needed if name not in known]
    if absent:
        raise errors.DataError(
            "the model's columns and those to repeat are needed,"
            f" but there is no {', '.join(map(repr, absent))}{near(absent[0], known)}"
        )


def _answers(model: Bundle, columns: Columns) -> Iterator[Row]:
    import numpy as np

    found = model.predict_columns(columns)
    if not np.isfinite(found.outputs).all():
        raise errors.ServingError("a model's outputs must be finite numbers, but got others")
    for answer, warnings in zip(model.task.answers(found.outputs), found.warnings, strict=True):
        yield {**answer, "warnings": warnings}


def renamed(name: str, taken: Container[str]) -> str:
    """The heading of a repeated column, which gives way to those of the answers."""
    return f"input.{name}" if name in taken else name


def _cell(value: Any) -> Any:
    """Convert a cell for JSON and CSV; missing values become None."""
    value = getattr(value, "item", lambda: value)()  # of NumPy
    if value is None or value != value:
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)
