"""`categorical`: names of categories."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from eagleray import messages
from eagleray.learn import features
from eagleray.learn.columns import fields, made, values
from eagleray.learn.columns.arrow import Distinct
from eagleray.learn.columns.column import Column, missing_rows
from eagleray.learn.columns.kind import Guess
from eagleray.learn.columns.words import WordKind
from eagleray.learn.features.categories import MOST_IN_SCHEMA
from eagleray.learn.needs import Need

MOST_DESCRIBED = 20
MOST_CHOICES = 50
"""Categories among which a person chooses; more are suggested to who types a name."""


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < max(2, len(names)):
        raise PydanticCustomError("law", "must name at least two columns, each once")
    return names


def _ordered(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < max(2, len(names)):
        raise PydanticCustomError("law", "must hold at least two names, each once")
    return names


class Options(made.Options):
    encoding: Literal["embedding", "ordinal", "hashing", "target"] = Field(
        "embedding",
        description="categorical: each of the most frequent values for itself; its place in an "
        "order; one of few buckets, by its hash; or the mean of the target, out of fold.",
    )
    max_categories: Annotated[int, Field(ge=1)] = Field(
        100, description="categorical: most frequent values that count; the rest are one."
    )
    buckets: Annotated[int, Field(ge=2, le=2**20)] = Field(
        256, description="categorical: buckets of `hashing`."
    )
    order: Annotated[tuple[str, ...], pydantic.Strict(False), AfterValidator(_ordered)] | None = (
        Field(
            None,
            description="categorical: all values in the order of `ordinal`; without it numbers by "
            "size, then by letters.",
        )
    )
    cross: Annotated[tuple[str, ...], pydantic.Strict(False), AfterValidator(_different)] | None = (
        Field(None, description="categorical: makes the column: the values of several as one.")
    )


def _needs(encoding: str) -> Need:
    law = f"needs encoding: {encoding} beside it"
    return Need("encoding", law, lambda chosen: chosen == encoding)


class Categorical(WordKind):
    name = "categorical"
    need = "one of the target's classes or a name"
    options = Options
    markers = values.MISSING
    dependent: ClassVar = {
        "max_categories": _needs("embedding"),
        "buckets": _needs("hashing"),
        "order": _needs("ordinal"),
    }

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        return Guess()

    def parsed_fields(self, array: np.ndarray, texts: Distinct) -> dict[str, Any]:
        names = sorted(set(array.tolist()) - {None})
        return {"categories": tuple(names) if len(names) <= MOST_IN_SCHEMA else None}

    def encoding(self, options: Any) -> features.Encoding:
        match options.encoding:
            case "hashing":
                return features.Category(buckets=options.buckets)
            case "ordinal":
                return features.Coded("order", tuple(options.order or ()))
            case "target":
                return features.Coded("target")
        return features.Category(options.max_categories)

    def misfits(self, column: Column, options: Any) -> Iterator[str]:
        order, known = options.order, column.categories or ()
        if options.encoding == "ordinal" and order and (left := sorted({*known} - {*order})):
            shown = messages.listed([repr(name) for name in left])
            yield f"order: must hold all values of {column.name}, but lacks {shown}"

    def remarks(
        self, column: Column, array: np.ndarray, train: np.ndarray, options: Any | None
    ) -> Iterator[str]:
        chosen = options or Options()
        if chosen.encoding == "embedding":
            yield from _rare(column, array, train, chosen.max_categories)
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
