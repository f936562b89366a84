"""Rows of a table predicted without a server: the endpoint's answer for each."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import bundle
from eagleray.errors import DataError
from eagleray.learn import schema, tasks
from eagleray.names import near

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """The endpoint's answer for each row of a table, with the same keys for all.

    Attributes:
        rows: an answer each; `error` has the number of a row that the model cannot take, from 1,
            and says what is wrong with it.
        repeated: columns of the table that stand beside the answers.
        task: what is predicted.
    """

    rows: list[Row]
    repeated: Mapping[str, schema.Raw]
    task: tasks.Task

    @property
    def faults(self) -> list[str]:
        """What is wrong with rows, in their order."""
        return [row["error"] for row in self.rows if row["error"]]

    def documents(self) -> Iterator[Row]:
        """A row after another, as JSON may hold it."""
        for number, row in enumerate(self.rows):
            yield {**self._beside(number, row), **row}

    def table(self) -> pd.DataFrame:
        """The answers as columns, the same whatever the rows are."""
        import pandas as pd

        heading = [*self.task.flat(self.task.blank), "warnings", "error"]
        flat = []
        for number, row in enumerate(self.rows):
            ends = {"warnings": "; ".join(row["warnings"]), "error": row["error"]}
            flat.append({**self._beside(number, heading), **self.task.flat(row), **ends})
        return pd.DataFrame(
            flat, columns=[*(_renamed(k, heading) for k in self.repeated), *heading]
        )

    def _beside(self, number: int, taken: Container[str]) -> Row:
        return {_renamed(name, taken): _plain(raw[number]) for name, raw in self.repeated.items()}


def predict(made: bundle.Bundle, frame: pd.DataFrame, *, repeated: Sequence[str] = ()) -> Answers:
    """Predict each row that the model can take, and say what is wrong with the others.

    Raises:
        DataError: a column of the model, or one of `repeated`, is absent.
    """
    from eagleray.tabular import load

    raw, columns = load.table(frame), list(dict.fromkeys(repeated))
    _check_names(raw, [*(column.name for column in made.schema.columns), *columns])
    return Answers(_answers(made, raw), {name: raw[name] for name in columns}, made.task)


def _check_names(raw: Mapping[str, schema.Raw], needed: Sequence[str]) -> None:
    absent = [name for name in needed if name not in raw]
    if absent:
        listed = ", ".join(map(repr, absent))
        raise DataError(
            "the model's columns, and those of --with, are needed,"
            f" but there is no {listed}{near(absent[0], list(raw))}"
        )


def _answers(made: bundle.Bundle, raw: Mapping[str, schema.Raw]) -> list[Row]:
    from serving import protocol

    columns, faults = schema.parse_rows(made.schema, raw)
    count = len(next(iter(raw.values())))
    found: Iterator[Row] = iter(())
    if len(faults) < count:
        found = iter(protocol.Codec(made.schema).answers(made.predict_columns(columns)))
    blank = made.task.blank
    return [
        {**blank, "warnings": [], "error": f"row {row + 1}: {faults[row]}"}
        if row in faults
        else {**blank, "warnings": [], **next(found), "error": None}
        for row in range(count)
    ]


def _renamed(name: str, taken: Container[str]) -> str:
    """What a repeated column is called where the answer has one of its name."""
    return f"input.{name}" if name in taken else name


def _plain(value: Any) -> Any:
    """A value of the table as JSON and CSV may hold it."""
    value = getattr(value, "item", lambda: value)()  # of NumPy
    if value is None or value != value:
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)
