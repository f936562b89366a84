"""Models that were made elsewhere, as bundles: a model's file and example rows are all it takes.

What belongs here: how the example's columns and the model's inputs and outputs become a schema.
What does not: running the model (`eagleray.engines`), and the registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from eagleray import bundle, engines, errors
from eagleray.imported import columns, manifest, outputs
from eagleray.imported.outputs import TARGET as TARGET
from eagleray.imported.outputs import Options as Options
from eagleray.learn import features, schema
from eagleray.tabular import load

if TYPE_CHECKING:
    import pandas as pd

    from eagleray.engines import Imported


@dataclass(frozen=True)
class Made:
    """A bundle, ready to be registered."""

    files: dict[str, bytes]
    manifest: dict[str, Any]
    classes: tuple[str, ...]  # in the order of the model's outputs
    notes: tuple[str, ...]  # for people: what looks odd about the example


def make(engine: str, content: bytes, frame: pd.DataFrame, options: Options) -> Made:
    """Make a bundle of a model's file and B example rows, and reproduce its golden rows.

    Raises:
        UserError: the file is no such model, or it and the example do not fit.
        DataError: the example has no rows, or values that the model cannot take.
    """
    raw = load.table(frame)
    truth = raw.pop(options.target, None)
    model = _read(engine, content, options)
    example = columns.fit(model.inputs, raw, rows=len(frame))
    given = model.explore(example.feed.apply(example.columns))
    target, form = outputs.describe(model.classifies, given, options, truth, rows=len(frame))
    known = schema.Schema(columns=example.described, target=target)
    made = bundle.Bundle(
        schema=known,
        transforms=_transforms(known, example.columns),
        engine=model,
        scale={},
        feed=example.feed,
        form=form,
    )
    _check_alone(made, example)
    facts = manifest.describe(made, model, example, truth, content=content, options=options)
    return Made(_files(made, example), facts, target.classes, example.notes)


def _read(engine: str, content: bytes, options: Options) -> Imported:
    if not content:
        raise errors.UserError(f"{engine}: a model is needed, but the file is empty")
    kind = cast("type[Imported]", engines.member(engine))
    return kind.read(content, output=options.output)


def _transforms(known: schema.Schema, example: schema.Columns) -> features.Transforms:
    """Transforms that only warn, of numbers out of range and of unknown categories."""
    warned = tuple(one for one in known.columns if one.categories or not one.kind.takes_any_text)
    return features.Transforms.fit(known.model_copy(update={"columns": warned}), {}, example)


def _check_alone(made: bundle.Bundle, example: columns.Example) -> None:
    """Refuse a model whose answer for a row depends on the rows beside it."""
    some, one = example.some(bundle.GOLDEN_ROWS), made.predict_columns
    rows = range(len(next(iter(some.values()))))
    alone = [one({name: a[at : at + 1] for name, a in some.items()}).outputs for at in rows]
    off = bundle.error(np.concatenate(alone), one(some).outputs)
    if not off <= made.engine.tolerance:
        raise errors.UserError(
            "the model must answer a row alike alone and among others, since requests are answered"
            f" together, but answers differ by {off:.2g}"
        )


def _files(made: bundle.Bundle, example: columns.Example) -> dict[str, bytes]:
    golden = schema.to_json(made.schema, example.some(bundle.GOLDEN_ROWS))
    reference = features.reference.describe(made.schema, example.columns)
    files = bundle.pack(made, golden, reference)
    bundle.unpack(files).verify()
    return files
