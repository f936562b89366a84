"""`numeric`: numbers; infinities become the largest number."""

import dataclasses
import functools
import itertools
import math
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, Union

import numpy as np
import pydantic
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from eagleray import messages
from eagleray.learn import features
from eagleray.learn.columns import fields, made, values
from eagleray.learn.columns.arrow import SAMPLE, Distinct
from eagleray.learn.columns.column import Column, Raw, Tolerance
from eagleray.learn.columns.kind import Guess, Parser
from eagleray.learn.columns.number import NumberKind, finite
from eagleray.learn.needs import Need

MOST_OTHER_SHARE, MOST_OTHERS = 0.01, 5
"""Maximum share of rows, and number of distinct texts, that are no numbers in such a column."""

MOST_OTHER_SHARE_NAMED = 0.5  # maximum share of rows where the experiment file names the kind

_PLAIN = frozenset({float, int, NoneType})
_FORMS = {False: "number", True: "comma"}


_IMPUTED = ("median", "mean", "mode")


def _imputed(value: object) -> object:
    if isinstance(value, str) and value in _IMPUTED:
        return value
    most = sys.float_info.max
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most:
        return value
    law = f"must be a number or one of {', '.join(_IMPUTED)}"
    raise PydanticCustomError("law", law, {"names": _IMPUTED})


def _apart(levels: tuple[float, float]) -> tuple[float, float]:
    if levels[0] >= levels[1]:
        raise PydanticCustomError("law", "must be [lower quantile, upper quantile]")
    return levels


Pair = Annotated[tuple[str, str], pydantic.Strict(False)]
Level = Annotated[float, Field(ge=0, le=1)]
Levels = Annotated[tuple[Level, Level], pydantic.Strict(False), AfterValidator(_apart)]


class Options(made.Options):
    scale: Literal["standard", "robust", "minmax", "log", "quantile", "none"] = Field(
        "standard",
        description="numeric: mean 0 and deviation 1; median 0 and the middle half 1 wide; from 0 "
        "to 1; standardised logarithm of 1 + size, with the sign; normal by ranks; or as it is.",
    )
    impute: Annotated[Literal["median", "mean", "mode"] | float, BeforeValidator(_imputed)] = Field(
        "median", description="numeric: what stands for a missing value."
    )
    indicator: bool = Field(
        True, description="numeric: tell missing values, if the training part has some."
    )
    clip: Levels | None = Field(
        None, description="numeric: quantiles of the training part to which values are bounded."
    )
    outliers: Literal["clip", "drop"] = Field(
        "clip", description="numeric: `drop` leaves out training rows with a value beyond `clip`."
    )
    bins: Annotated[int, Field(ge=2, le=65_535)] | None = Field(
        None, description="numeric: indicators of so many bins of equal counts, beside the number."
    )
    ratio: Pair | None = Field(
        None, description="numeric: makes the column: the first of two columns by the second."
    )
    difference: Pair | None = Field(
        None, description="numeric: makes the column: the first less the second; of times, seconds."
    )

    @property
    def number(self) -> features.Number:
        """How a column with these options enters a model."""
        no_encoding = {*features.made.MAKERS, *made.Options.model_fields}
        own = Options.model_fields.keys() - no_encoding
        return features.Number(warns=True, **{name: getattr(self, name) for name in own})


class Numeric(NumberKind):
    name = "numeric"
    need = "a number"
    options = Options
    target = "numeric"
    is_ordered = True
    has_outliers = True
    parsed_dtype = None
    dependent: ClassVar = {"outliers": Need("clip", "needs clip beside it", bool)}
    native = (int, float, Decimal, np.number)
    tensor = "FP64"

    def holds(self, types: Collection[type]) -> bool:
        return bool not in types and super().holds(types)

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        readings = list(_readings(texts))
        if not readings:
            return None
        comma, counts, others = min(readings, key=_rows_without)
        share, most = MOST_OTHER_SHARE, MOST_OTHERS
        if named:
            share, most = MOST_OTHER_SHARE_NAMED, sys.maxsize
        rows = _rows_without((comma, counts, others))
        if len(others) > most or rows > share * texts.rows(_FORMS[comma]):
            return None
        if not named and any(map(is_code, counts)):
            return None
        return _guess(comma, others, _by_convention(texts, counts) if comma else "")

    def plain(self, column: Column) -> str:
        return _FORMS[column.decimal_comma]

    def parsed_fields(self, array: np.ndarray, texts: Distinct) -> dict[str, Any]:
        present = array[~np.isnan(array)]
        return {"integer": _are_whole(present[:SAMPLE]) and _are_whole(present)}

    def is_key(self, column: Column, array: np.ndarray, *, hinted: bool) -> bool:
        return column.integer and (hinted or bool((np.abs(np.diff(array)) == 1).all()))

    def read(self, column: Column, value: Any) -> float:
        return values.number(value, comma=column.decimal_comma)

    def parse(self, column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
        if isinstance(raw, np.ndarray) and raw.dtype.kind in "iufb":
            return self.with_gaps(column, finite(raw.astype(np.float64)))
        numbers = _plain(raw)
        if numbers is None:
            numbers = finite(super().parse(column, raw, tolerance))
        return self.with_gaps(column, numbers)

    def parser(self, columns: Sequence[Column]) -> Parser:
        one_by_one = super().parser(columns)
        marks = {mark for one in columns for mark in _marks(one.missing, one.decimal_comma)}

        def together(raw: Sequence[Sequence[Any]]) -> Sequence[np.ndarray]:
            numbers = _plain(list(itertools.chain.from_iterable(raw)))
            if numbers is None:
                return one_by_one(raw)
            arrays = list(numbers.reshape(len(columns), -1))
            has_gaps = marks and not marks.isdisjoint(numbers.tolist())
            return list(map(self.with_gaps, columns, arrays)) if has_gaps else arrays

        return together

    def with_gaps(self, column: Column, numbers: np.ndarray) -> np.ndarray:
        for mark in _marks(column.missing, column.decimal_comma):
            numbers = np.where(numbers == mark, math.nan, numbers)
        return numbers

    def encoding(self, options: Any) -> features.Encoding:
        number: features.Number = options.number
        return number

    def wire(self, column: Column) -> Any:
        marks = (*column.missing, "") if column.nullable else ()
        return Union[float, Literal[marks]] if marks else float  # noqa: UP007

    def openapi(self, column: Column) -> dict[str, Any]:
        number: dict[str, Any] = {"type": "number"}
        marks = values.pattern(values.markers(frozenset({""}), column.missing))
        return {"anyOf": [number, marks]} if column.nullable else number

    def field(
        self, column: Column, examples: Sequence[Any], extremes: fields.Range | None
    ) -> fields.Field:
        plain = super().field(column, examples, extremes)
        return dataclasses.replace(plain, keyboard="text" if _signed(extremes) else "decimal")


NUMERIC = Numeric()


def is_code(text: str) -> bool:
    """Whether it is a code with a leading zero, such as 01067."""
    return re.fullmatch(r"0\d+", text) is not None


def not_numbers(texts: Iterable[str], comma: bool) -> list[str]:
    """Texts that are no numbers, in their order."""
    return [text for text in texts if not values.is_number(text, comma=comma)]


@functools.lru_cache(maxsize=1024)
def _marks(texts: tuple[str, ...], comma: bool) -> tuple[float, ...]:
    """Numbers among texts that stand for a missing value."""
    named = (text for text in texts if values.is_number(text, comma=comma))
    return tuple(values.number(text, comma=comma) for text in named)


def _plain(raw: Raw) -> np.ndarray | None:
    """Raw values as float64, missing ones NaN; None if one is neither a number nor missing."""
    if not _PLAIN.issuperset(map(type, raw)):
        return None
    try:
        numbers = np.array(raw, np.float64)
    except OverflowError:
        return None
    return finite(numbers) if np.isinf(numbers).any() else numbers


def has_comma(texts: Iterable[str]) -> bool | None:
    """Whether numbers among texts have a decimal comma, or a point; None where none has either."""
    votes = Counter(_comma(text) for text in texts if "," in text or "." in text)
    if not votes[True] and not votes[False]:
        return None
    return votes[True] > votes[False]


def _comma(text: str) -> bool | None:
    """True if it is a number with a decimal comma alone, False with a point alone, else None."""
    as_point, as_comma = (values.is_number(text, comma=comma) for comma in (False, True))
    return None if as_point == as_comma else as_comma


_Reading = tuple[bool, Counter[str], list[str]]


def _readings(texts: Distinct) -> Iterator[_Reading]:
    """Decimal comma or not, the counts of texts that are not plain, those that are no numbers.

    First the one that the table's other columns have; none beside one without others.
    """
    for comma in (texts.comma, not texts.comma):
        if len(not_numbers(texts.sample, comma)) > max(1, len(texts.sample) // 2):
            continue
        counts = texts.not_plain(_FORMS[comma])
        others = not_numbers(counts, comma)
        yield comma, counts, others
        if not others:
            return


def _rows_without(reading: _Reading) -> int:
    """The count of rows that hold no number."""
    _, counts, others = reading
    return sum(counts[text] for text in others)


def _by_convention(texts: Distinct, counts: Counter[str]) -> str:
    """A note on numbers that have a decimal comma since other columns have one."""
    marked = [text for text in counts if "," in text or "." in text]
    if not texts.comma or not marked or not_numbers(marked, comma=False):
        return ""
    number = values.number(marked[0], comma=True)
    return f"{marked[0]!r} is read as {number:.12g}, since other columns have a decimal comma"


def _guess(comma: bool, others: list[str], note: str) -> Guess:
    shown = messages.listed([repr(text) for text in others])
    notes = [note, f"{shown} among numbers is taken as missing" if others else ""]
    return Guess({"decimal_comma": comma}, tuple(others), "; ".join(filter(None, notes)))


def _signed(extremes: fields.Range | None) -> bool:
    """Whether a number may be negative: the decimal keyboard of some phones has no minus."""
    return extremes is None or extremes[0] < 0


def _are_whole(numbers: np.ndarray) -> bool:
    return bool((numbers == np.floor(numbers)).all() and np.abs(numbers).max() < 2**53)
