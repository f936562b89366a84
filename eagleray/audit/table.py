"""The table that is audited, and what several checks ask of it. Legend: B rows, F traits."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from eagleray import messages
from eagleray.audit import estimates
from eagleray.learn import columns, repeats, tasks
from eagleray.learn.columns.words import hints_at_identifier
from eagleray.learn.schema import Column, Columns, Schema

if TYPE_CHECKING:
    from eagleray import spec

MODEL_ROWS = 40_000
"""Rows that models of several columns are made of."""
COLUMN_ROWS = 10_000
"""Rows that a model of one column is made of."""
MOST_TRAITS = 400
"""Numbers of a row that a model is given."""
LEAST_GROUPS, LEAST_SIZE = 10, 2.0
"""Least number of groups, and of rows in a group on average."""
ENTITY = re.compile(
    r"(?i)(^|[_\W])(account|applicant|batch|client|company|customer|device|driver|employee|family|"
    r"group|household|machine|member|owner|patient|person|player|product|seller|sensor|session|"
    r"shop|site|speaker|store|student|subject|supplier|tenant|user|vehicle|vendor|visitor|writer)"
    r"([_\W]?(id|code|key|name|nr|no|num|number|hash))?$|e-?mail"
)
"""Names of columns that may name a person or a thing."""
MOST_SHOWN, MOST_ROWS = 5, 2000
"""Sample rows of a finding, and suspects that it lists."""
WIDTH, CELL = 100, 20
"""Characters of a sample row, and of one of many values in it."""


@dataclass(frozen=True)
class Table:
    """A table as a search sees it.

    Attributes:
        columns: canonical values of the B rows, by name.
        targets: see `tasks.Task.encode`.
        rows: the number of each row in the source (B), from 1.
        parts: indices of the rows of each part: training, validation, test.
        keys: columns that only identify rows, which a search leaves out.
        marks: the group and the time of each row (B) that the split goes by, as far as it does.
        spellings: by column, texts that are read as one name.
        total: rows of the source; more than B where the others are not in memory.
        now: seconds since 1970.
    """

    experiment: spec.Experiment
    schema: Schema
    columns: Columns
    targets: np.ndarray
    rows: np.ndarray
    parts: Mapping[str, np.ndarray]
    now: float
    keys: Sequence[tuple[Column, np.ndarray]] = ()
    marks: Sequence[np.ndarray] = ()
    spellings: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    total: int = 0

    def __len__(self) -> int:
        return len(self.targets)

    def __iter__(self) -> Iterator[tuple[Column, np.ndarray]]:
        """The inputs: each column with its values."""
        yield from ((column, self.columns[column.name]) for column in self.schema.columns)

    @property
    def streamed(self) -> bool:
        """Whether the source has more rows, which are never compared, grouped or sorted."""
        return self.total > len(self)

    @property
    def beside(self) -> list[np.ndarray]:
        """What makes rows different beside the inputs."""
        return [self.targets, *(array for _, array in self.keys), *self.marks]

    @property
    def time(self) -> np.ndarray | None:
        """The time of each row (B) that the split goes by; None where it goes by none."""
        return self.marks[-1] if self.marks and self.experiment.data.split.time else None

    @property
    def classes(self) -> int:
        """The number of classes; 0 where a quantity is predicted."""
        return len(self.schema.target.classes)

    @functools.cached_property
    def task(self) -> tasks.Task:
        return tasks.of(self.schema.target)

    def sample(self, most: int) -> np.ndarray:
        """Indices of at most so many rows, ascending; drawn by chance, the same each time."""
        if len(self) <= most:
            return np.arange(len(self))
        return np.sort(np.random.default_rng(0).permutation(len(self))[:most])

    def scope(self, used: int) -> tuple[str, ...]:
        """The evidence that not all rows were used; empty if they were."""
        return (f"estimated on {used:,} of {len(self):,} rows",) if used < len(self) else ()

    def numbers(self, places: np.ndarray) -> tuple[int, ...]:
        """The numbers of these rows in the source."""
        return tuple(self.rows[places].tolist())

    def shown(self, places: np.ndarray) -> tuple[str, ...]:
        """Sample rows as text, with their numbers in the source; long ones are cut."""
        return tuple(
            messages.shortened(self._shown(int(one)), WIDTH) for one in places[:MOST_SHOWN]
        )

    def truths(self, places: np.ndarray) -> np.ndarray:
        """The targets of rows: numbers of classes, or values in float64."""
        found: np.ndarray = self.targets[places]
        return found if self.classes else found.astype(np.float64)

    def target_text(self, place: int) -> str:
        """The target of a row, as text."""
        value = self.targets[place]
        return self.schema.target.classes[int(value)] if self.classes else f"{float(value):.6g}"

    @functools.cached_property
    def hashes(self) -> repeats.Rows:
        """Which rows are equal."""
        return repeats.rows(self, self.beside)

    @functools.cached_property
    def giveaways(self) -> dict[str, estimates.Closeness]:
        """How close each input is to the target, by name."""
        places = self.sample(COLUMN_ROWS)
        truth = self.truths(places)
        quantities = {column.name: column.kind.quantity(array[places]) for column, array in self}
        return {
            name: estimates.closeness(one, truth, self.classes) for name, one in quantities.items()
        }

    @functools.cached_property
    def entities(self) -> dict[str, np.ndarray]:
        """Columns that may name a person or a thing of several rows: a code for each row (B)."""
        import pandas as pd

        found = {}
        for column, array in self:
            named = hints_at_identifier(column.name) or ENTITY.search(column.name)
            if named and array.ndim == 1 and not column.kind.is_rich:
                code_B, known = pd.factorize(array)
                if LEAST_GROUPS <= len(known) <= len(array) / LEAST_SIZE:
                    found[column.name] = code_B
        return found

    @functools.cached_property
    def clocks(self) -> set[str]:
        """Inputs without gaps that tell when a row was taken: times, and what grows with rows."""
        found = {column.name for column, array in self if _grows(array)}
        timed = ((column.name, array) for column, array in self if column.kind.is_time)
        return found | {name for name, array in timed if not columns.missing_rows(array).any()}

    @functools.cached_property
    def leaks(self) -> set[str]:
        """The inputs from which the target can be read off.

        Rows of one entity, and of one time, may be alike without a leak of the column: `parts`.
        """
        alike = self.clocks | self.entities.keys()
        return {
            name
            for name, one in self.giveaways.items()
            if one.copy or one.near or (one.gives_away and name not in alike)
        }

    @functools.cached_property
    def modelled(self) -> np.ndarray:
        """Indices of the rows that models of all columns are made of."""
        return self.sample(MODEL_ROWS)

    @functools.cached_property
    def predicted(self) -> np.ndarray | None:
        """Predictions of the modelled rows by models that have not seen them; None without one."""
        return self.predict(self.folds)

    @functools.cached_property
    def folds(self) -> np.ndarray:
        """A fold for each modelled row by chance."""
        return estimates.shuffled(self.truths(self.modelled), self.classes)

    def predict(
        self, fold_B: np.ndarray, without: str = "", truth: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Cross-validated predictions of the modelled rows; the fold -1 is not predicted.

        Models are given the inputs that are no leaks, and not the column `without`; `truth` stands
        for the target of the modelled rows.
        """
        truth = self.truths(self.modelled) if truth is None else truth
        if self.classes > estimates.MOST_CLASSES or len(truth) < estimates.LEAST_ROWS:
            return None
        parts = [array for name, array in self._traits.items() if name != without]
        if not parts:
            return None
        traits_BF = np.concatenate(parts, axis=1)[:, :MOST_TRAITS]
        return estimates.out_of_fold(traits_BF, truth, self.classes, fold_B)

    @functools.cached_property
    def _traits(self) -> dict[str, np.ndarray]:
        """Numbers of the modelled rows (B, F), by input."""
        found = {
            column.name: column.kind.traits(array[self.modelled])
            for column, array in self
            if column.name not in self.leaks
        }
        bounded = {name: np.clip(one, -1e30, 1e30) for name, one in found.items()}
        return {name: one.astype(np.float32) for name, one in bounded.items() if one.shape[1]}

    def _shown(self, place: int) -> str:
        width = max(CELL, WIDTH // (2 * len(self.schema.columns)))
        cells = [f"row {self.rows[place]:,}: {self.schema.target.name} {self.target_text(place)}"]
        for column, array in self:
            value = column.kind.quantity(array[place : place + 1])[0] if array.ndim > 1 else None
            text = str(column.kind.to_json(array[place : place + 1])[0] if value is None else value)
            cells.append(f"{column.name} {messages.shortened(' '.join(text.split()), width)}")
        return ", ".join(cells)


def _grows(array: np.ndarray) -> bool:
    """Whether numbers never fall from row to row, or never grow."""
    if array.ndim > 1 or array.dtype == object or len(array) < 2:
        return False
    steps = np.diff(array)
    return bool((steps >= 0).all() or (steps <= 0).all())
