"""What is on record about a version that was made elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import eagleray
from eagleray.learn import metrics, schema

if TYPE_CHECKING:
    from eagleray.bundle import Bundle
    from eagleray.engines import Imported
    from eagleray.imported.columns import Example
    from eagleray.imported.outputs import Options

LEAST_ROWS = 100  # of an example; the statistics of fewer are poor


def describe(
    made: Bundle,
    model: Imported,
    example: Example,
    truth: schema.Raw | None,
    *,
    content: bytes,
    options: Options,
) -> dict[str, Any]:
    """The manifest; `truth` of the example's rows gives metrics. DataError for an unknown class."""
    return {
        "task": made.task.name,
        "metrics": {} if truth is None else {"example": _score(made, example, truth)},
        "warnings": list(_warnings(example)),
        "rows": {"example": example.rows},
        "lineage": {  # equal for the same model, example and options
            "engine": model.name,
            "model": hashlib.sha256(content).hexdigest(),
            "example": _fingerprint(made.schema, example),
            "options": json.loads(json.dumps(dataclasses.asdict(options))),
        },
        "made_with": {
            "eagleray": eagleray.__version__,
            "python": platform.python_version(),
            "model": model.made_with,
            model.library: metadata.version(model.library),
        },
    }


def _score(made: Bundle, example: Example, truth: schema.Raw) -> dict[str, float]:
    outputs = made.predict_columns(example.columns).outputs
    return metrics.score(made.schema.target, made.task.encode(truth), outputs)


def _warnings(example: Example) -> list[str]:
    if example.rows >= LEAST_ROWS:
        return []
    return [
        f"was added with an example of {example.rows} rows: drift, and warnings of unusual values, "
        f"compare with these alone; {LEAST_ROWS} or more of the training rows are better"
    ]


def _fingerprint(known: schema.Schema, example: Example) -> str:
    rows = schema.to_json(known, example.columns)
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
