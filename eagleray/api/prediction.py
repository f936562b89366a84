"""Predictions for the rows of a table, without a server: an answer or an error for each."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray.errors import DataError
from eagleray.names import near

if TYPE_CHECKING:
    import pandas as pd

    from eagleray.bundle import Bundle
    from eagleray.learn import tasks
    from eagleray.learn.schema import Raw

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
        repeated = [_renamed(name, heading) for name in self.repeated]
        return pd.DataFrame(flat, columns=[*repeated, *heading])

    def _repeated_cells(self, number: int, taken: Container[str]) -> Row:
        return {_renamed(name, taken): _plain(raw[number]) for name, raw in self.repeated.items()}


def predict(model: Bundle, frame: pd.DataFrame, *, repeated: Sequence[str] = ()) -> Answers:
    """Predict the valid rows, give the others an `error`; DataError if a column is absent."""
    from eagleray.learn import schema
    from eagleray.tabular import load
    from serving import protocol

    raw, beside = load.table(frame), list(dict.fromkeys(repeated))
    _check_names(raw, [*(column.name for column in model.schema.columns), *beside])
    columns, faults = schema.parse_rows(model.schema, raw)
    answers: Iterator[Row] = iter(())
    if len(faults) < len(frame):
        answers = iter(protocol.Codec(model.schema).answers(model.predict_columns(columns)))
    blank = {**model.task.blank, "warnings": [], "error": None}
    rows = [
        {**blank, "error": f"row {row + 1}: {faults[row]}"}
        if row in faults
        else {**blank, **next(answers)}
        for row in range(len(frame))
    ]
    return Answers(rows, {name: raw[name] for name in beside}, model.task)


def _check_names(raw: Mapping[str, Raw], needed: Sequence[str]) -> None:
    absent = [name for name in needed if name not in raw]
    if absent:
        raise DataError(
            "the model's columns and those to repeat are needed,"
            f" but there is no {', '.join(map(repr, absent))}{near(absent[0], list(raw))}"
        )


def _renamed(name: str, taken: Container[str]) -> str:
    return f"input.{name}" if name in taken else name


def _plain(value: Any) -> Any:
    """Convert a cell for JSON and CSV; missing values become None."""
    value = getattr(value, "item", lambda: value)()  # of NumPy
    if value is None or value != value:
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)
