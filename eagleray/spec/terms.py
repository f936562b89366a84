"""The types of the keys of the experiment file, beside those of `eagleray.learn.models.options`."""

import dataclasses
import itertools
import math
import re
import zoneinfo
from collections.abc import Iterable
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from eagleray import code
from eagleray.learn.models.options import Many, Section
from eagleray.learn.tasks import MEDIAN

NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
STORAGE = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?|file:///[^?#]+)$"
SEARCH = r"^[0-9a-f]{12}$"
MEMORY = r"^[1-9][0-9]{0,8}(MB|GB)$"
TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
CHARACTER = r"^[\x00-\x09\x0b\x0c\x0e-!#-\x7f]$"
ONE_STANDARD_ERROR = "one_standard_error"
ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "iso-8859-15", "cp1252")
"""Suggestions for a misspelt encoding; Python knows many more."""


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Text that is registered, `auto` too, or the user's own `module:function` if `own` is set."""

    registry: Iterable[str]
    own: bool = False
    auto: bool = True

    @property
    def names(self) -> list[str]:
        return [*(["auto"] if self.auto else []), *self.registry]

    def __get_pydantic_core_schema__(
        self, source: object, handler: pydantic.GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, *_: object) -> dict[str, Any]:
        names = {"enum": self.names, "type": "string"}
        own = {"pattern": code.PATTERN, "type": "string"}
        return {"anyOf": [names, own]} if self.own else names

    def _check(self, value: str) -> str:
        if value in self.names or (self.own and code.is_name(value)):
            return value
        names = [*self.names, "module:function"] if self.own else self.names
        raise PydanticCustomError("choice", "must be one of {names}", {"names": names})


@dataclasses.dataclass(frozen=True)
class NumberOrBounds:
    """Bounds `{min: …, max: …}`, or a number of at least 1 that is both."""

    def __get_pydantic_core_schema__(
        self, source: type[pydantic.BaseModel], handler: pydantic.GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            self._read,
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(self._write),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"minimum": 1, "type": "integer"}, handler(schema["schema"])]}

    def _read(self, value: object) -> object:
        if type(value) is int and value >= 1:
            return {"min": value, "max": value}
        if not isinstance(value, dict | pydantic.BaseModel):
            law = "must be a whole number of at least 1, or {min: …, max: …}"
            raise PydanticCustomError("law", law)
        return value

    def _write(self, value: Any) -> object:
        return value.min if value.min == value.max else {"min": value.min, "max": value.max}


@dataclasses.dataclass(frozen=True)
class Named:
    """A section, or a word that stands for its defaults."""

    word: str

    def __get_pydantic_core_schema__(
        self, source: type[pydantic.BaseModel], handler: pydantic.GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"const": self.word}, handler(schema["schema"])]}

    def _read(self, value: object) -> object:
        if value == self.word:
            return {}
        if not isinstance(value, dict | pydantic.BaseModel):
            raise PydanticCustomError("law", f"must be {self.word}, or a mapping of its keys")
        return value


class Bounds(Section):
    """A least and a largest number."""

    @pydantic.field_validator("max", check_fields=False)
    @classmethod
    def _at_least_min(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min", 1):
            raise PydanticCustomError("law", f"must be at least min, {info.data['min']}")
        return value


def _number_or_rule(value: object) -> object:
    if value == ONE_STANDARD_ERROR:
        return value
    if type(value) in (int, float) and 0 <= value < math.inf:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    names = {"names": [ONE_STANDARD_ERROR]}
    raise PydanticCustomError(
        "law", f"must be a number of at least 0, or {ONE_STANDARD_ERROR}", names
    )


def _auto_or_size(value: object) -> object:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("law", "must be auto or a whole number of at least 1")


def _ascending(levels: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in itertools.pairwise(levels)):
        raise PydanticCustomError("law", "must ascend, and hold each level once")
    if levels and MEDIAN not in levels:
        raise PydanticCustomError("law", f"must hold {MEDIAN}, the median, which is the prediction")
    return levels


def _class_weights(value: object) -> object:
    if value in ("none", "balanced"):
        return value
    if not isinstance(value, dict) or not value:
        law = "must be none, balanced, or the weights of classes, such as {fraud: 10}"
        raise PydanticCustomError("law", law)
    for label, weight in value.items():
        known = type(weight) in (int, float) and math.isfinite(weight)
        if not isinstance(label, str) or not known or weight <= 0:
            law = "each weight must be a number above 0"
            raise PydanticCustomError("law", law, {"got": f"{weight} for {label}"})
    return {label: float(weight) for label, weight in value.items()}


def _true_or_search(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, str) and re.fullmatch(SEARCH, value)):
        return value
    raise PydanticCustomError("law", "must be true, false or the id of a search")


def _known_encoding(value: str) -> str:
    try:
        "".encode(value)
    except (LookupError, ValueError):
        law, near = "must be an encoding that Python knows", {"names": ENCODINGS}
        raise PydanticCustomError("law", law, near) from None
    return value


def _known_zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        law, near = "must be a time zone, such as Europe/Zurich", zoneinfo.available_timezones()
        raise PydanticCustomError("law", law, {"names": sorted(near)}) from None
    return value


def _whole_or_part(value: float) -> float:
    if value > 1 and value % 1:
        raise PydanticCustomError("law", "must be whole, or a part of one")
    return value


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0), AfterValidator(_whole_or_part)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Filled = Annotated[str, Field(min_length=1)]
Zone = Annotated[str, AfterValidator(_known_zone)]
Encoding = Annotated[str, AfterValidator(_known_encoding)]
AutoOrSize = Annotated[
    int | str,
    pydantic.PlainValidator(_auto_or_size),
    pydantic.WithJsonSchema({"anyOf": [{"const": "auto"}, {"minimum": 1, "type": "integer"}]}),
]
TrueOrSearch = Annotated[
    bool | str,
    pydantic.PlainValidator(_true_or_search),
    pydantic.WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"pattern": SEARCH, "type": "string"}]}
    ),
]
Quantiles = Annotated[Many[Part], Field(max_length=99), AfterValidator(_ascending)]
ClassWeights = Annotated[
    str | dict[str, float],
    pydantic.PlainValidator(_class_weights),
    pydantic.WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["none", "balanced"], "type": "string"},
                {
                    "type": "object",
                    "additionalProperties": {"type": "number", "exclusiveMinimum": 0},
                    "minProperties": 1,
                },
            ]
        }
    ),
]
Memory = Annotated[str, Field(pattern=MEMORY)]
Character = Annotated[str, Field(pattern=CHARACTER)]
Tolerance = Annotated[
    float | str,
    pydantic.PlainValidator(_number_or_rule),
    pydantic.WithJsonSchema(
        {"anyOf": [{"minimum": 0, "type": "number"}, {"const": ONE_STANDARD_ERROR}]}
    ),
]
