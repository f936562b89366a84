"""`categorical`: names of categories."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from eagleray import messages
from eagleray.learn import features
from eagleray.learn.columns import fields, values
from eagleray.learn.columns.arrow import Distinct
from eagleray.learn.columns.column import Column, missing_rows
from eagleray.learn.columns.kind import Guess
from eagleray.learn.columns.words import WordKind
from eagleray.learn.features.categories import MOST_IN_SCHEMA

MOST_DESCRIBED = 20
MOST_CHOICES = 50
"""Categories among which a person chooses; more are suggested to who types a name."""


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < max(2, len(names)):
        raise PydanticCustomError("law", "must name at least two columns, each once")
    return names


class Options(pydantic.BaseModel):
    max_categories: Annotated[int, Field(ge=1)] = Field(
        100, description="categorical: most frequent values that count; the rest are one."
    )
    cross: Annotated[tuple[str, ...], pydantic.Strict(False), AfterValidator(_different)] | None = (
        Field(None, description="categorical: makes the column: the values of several as one.")
    )


class Categorical(WordKind):
    name = "categorical"
    need = "one of the target's classes or a name"
    options = Options
    markers = values.MISSING

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        return Guess()

    def parsed_fields(self, array: np.ndarray, texts: Distinct) -> dict[str, Any]:
        names = sorted(set(array.tolist()) - {None})
        return {"categories": tuple(names) if len(names) <= MOST_IN_SCHEMA else None}

    def encoding(self, options: Any) -> features.Encoding:
        return features.Category(options.max_categories)

    def remarks(
        self, column: Column, array: np.ndarray, train: np.ndarray, options: Any | None
    ) -> Iterator[str]:
        yield from _rare(column, array, train, (options or Options()).max_categories)
        yield from super().remarks(column, array, train, options)

    def wire(self, column: Column) -> Any:
        scalars = column.integer or any(map(_is_scalar, column.categories or ()))
        return bool | float | str if scalars else str

    def openapi(self, column: Column) -> dict[str, Any]:
        described: dict[str, Any] = super().openapi(column)
        if self.wire(column) is not str:
            described = {"anyOf": [{"type": one} for one in ("string", "number", "boolean")]}
        if column.categories is None:
            return described
        seen = f"Seen in training: {', '.join(column.categories[:MOST_DESCRIBED])}"
        return {**described, "description": seen}

    def field(
        self, column: Column, examples: Sequence[Any], extremes: fields.Range | None
    ) -> fields.Field:
        known, value = column.categories or (), self.parse(column, examples[:1])[0] or ""
        if not known or len(known) > MOST_CHOICES:
            hint = f"a name; {len(known):,} are known" if known else "a name"
            return fields.Field(hint=hint, known=known, value=value)
        choices = known if value in {"", *known} else (*known, value)
        return fields.Field(control="choice", known=choices, value=value)


CATEGORICAL = Categorical()


def _is_scalar(text: str) -> bool:
    try:
        return isinstance(json.loads(text), bool | int | float)
    except ValueError:
        return False


def _rare(column: Column, array: np.ndarray, train: np.ndarray, most: int) -> Iterator[str]:
    if column.categories is not None and len(column.categories) <= most:
        return
    training = array[train]
    counts = Counter(training[~missing_rows(training)].tolist())
    rare = sorted(counts.values(), reverse=True)[most:]
    if not rare:
        return
    options = {"type": column.type, "max_categories": len(counts)}
    fix = messages.setting({"features": {column.name: options}})
    share = messages.percent(sum(rare) / counts.total())
    yield (
        f"{column.name}: of {len(counts):,} categories the {most:,} most frequent count; the other"
        f" {len(rare):,}, {share} of the rows, are taken as one; {fix} keeps them apart"
    )
