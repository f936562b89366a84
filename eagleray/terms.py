"""What the sections of an experiment file are made of: their base, and the types of their keys."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, TypeVar

import pydantic
from pydantic import AfterValidator, Field, Strict
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
MODULE_FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
STORAGE = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?|file:///[^?#]+)$"
PATTERNS = {
    NAME: "must be lowercase letters, digits and hyphens, at most 40, from a letter on",
    MODULE_FUNCTION: "must be module:function",
    STORAGE: "must be s3://bucket, s3://bucket/prefix or file:///folder",
}
NOT_BUILT = ("monitor", "serve.slo", "serve.rollout", "recommender")


SYNONYMS = {
    "acc": "accuracy",
    "accuracy_score": "accuracy",
    "ap": "pr_auc",
    "auc": "roc_auc",
    "auc_roc": "roc_auc",
    "auprc": "pr_auc",
    "auroc": "roc_auc",
    "average_precision": "pr_auc",
    "f1_macro": "f1",
    "f1_score": "f1",
    "mean_absolute_error": "mae",
    "mean_squared_error": "rmse",
    "mse": "rmse",
    "r2_score": "r2",
    "r_squared": "r2",
    "root_mean_squared_error": "rmse",
    "sensitivity": "recall",
    "bce": "cross_entropy",
    "nll": "cross_entropy",
    "l2": "mse",
}
"""What other libraries call these metrics and losses, for who writes that."""

ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "iso-8859-15", "cp1252")
"""What a misspelt one may be; Python knows many more."""


class Section(pydantic.BaseModel):
    """A mapping with known keys; `tag` tells apart the sections that share a place."""

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )
    tag: ClassVar[str | None] = None


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Text that is `auto` or registered, or the user's own `module:function` if `code` is set."""

    registry: Iterable[str]
    code: bool = False

    @property
    def names(self) -> list[str]:
        """All names, those of installed packages too."""
        return ["auto", *self.registry]

    def __get_pydantic_core_schema__(
        self, source: object, handler: pydantic.GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        names = {"enum": self.names, "type": "string"}
        own = {"pattern": MODULE_FUNCTION, "type": "string"}
        return {"anyOf": [names, own]} if self.code else names

    def _check(self, value: str) -> str:
        if value in self.names or (self.code and re.search(MODULE_FUNCTION, value)):
            return value
        names = [*self.names, "module:function"] if self.code else self.names
        raise PydanticCustomError("choice", "must be one of {names}", {"names": names})


def _one_only(value: int) -> int:
    if value > 1:
        raise PydanticCustomError("law", "more than 1 is not built yet")
    return value


def _known_encoding(value: str) -> str:
    try:
        "".encode(value)
    except (LookupError, ValueError):
        near = difflib.get_close_matches(value.lower(), ENCODINGS, n=1)
        law = "must be an encoding that Python knows"
        raise PydanticCustomError("law", law, {"near": near[0] if near else None}) from None
    return value


def _one_character(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value in '"\r\n':
        raise PydanticCustomError("law", "must be one ASCII character")
    return value


def _whole_or_part(value: float) -> float:
    if value > 1 and value % 1:
        raise PydanticCustomError("law", "must be whole, or a part of one")
    return value


Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], Strict(False)]  # a YAML list, frozen
Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0), AfterValidator(_whole_or_part)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Filled = Annotated[str, Field(min_length=1)]
Encoding = Annotated[str, AfterValidator(_known_encoding)]
Character = Annotated[str, AfterValidator(_one_character)]
One = Annotated[int, Field(ge=1, json_schema_extra={"const": 1}), AfterValidator(_one_only)]
