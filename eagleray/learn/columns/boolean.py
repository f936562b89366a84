"""`boolean`: 0, 1 or NaN."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from eagleray.learn import features
from eagleray.learn.columns import fields, values
from eagleray.learn.columns.arrow import SAMPLE, Distinct
from eagleray.learn.columns.column import Column
from eagleray.learn.columns.kind import Guess
from eagleray.learn.columns.number import NumberKind

_PAIRS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})


class Boolean(NumberKind):
    name = "boolean"
    need = "true or false"
    native = (bool, np.bool_)
    target = "boolean"
    encoded = features.Number("sign")
    json_types = bool | float | str
    tensor = "BOOL"
    json_schema: ClassVar = {
        "anyOf": [
            {"type": "boolean"},
            {"type": "number", "enum": [0, 1]},
            values.pattern(values.TRUE | values.FALSE),
        ]
    }

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        words = {text.casefold() for text in texts.sample}
        return Guess() if words in _PAIRS and len(texts.sample) < SAMPLE else None

    def parsed_fields(self, array: np.ndarray, texts: Distinct) -> dict[str, Any]:
        words = texts.counts or ["false", "true"]
        return {"categories": tuple(sorted(words, key=lambda word: (values.boolean(word), word)))}

    def read(self, column: Column, value: Any) -> float:
        return values.boolean(value)

    def write(self, value: float) -> Any:
        return bool(value)

    def field(
        self, column: Column, examples: Sequence[Any], extremes: fields.Range | None
    ) -> fields.Field:
        (value,) = self.to_json(self.parse(column, examples[:1]))
        known = "true", "false"
        return fields.Field(control="choice", known=known, value=fields.written(value), typed=True)


BOOLEAN = Boolean()
