"""A bundle: one trained model and all files that it needs to predict.

    bundle.json               format, schema, engine and model options, state of the transforms
    model.safetensors         weights; of a model made elsewhere `model.onnx` and the like
    chosen.safetensors        of a recommender, what each user has chosen
    transforms.safetensors    what the transforms learned from the training part
    reference.json            statistics of the training part, for drift
    golden.json               rows, and the outputs that a replica must reproduce
    code/{module}.py          source of the user's architecture and columns, if any
    predictions.parquet       truth and prediction for each row of the test part, for people
    evaluation.json           how good it is there, for reports (`eagleray.state.evaluations`)
    members/{n}/…             models of an ensemble, see `eagleray.engines.ensemble`

Nothing is unpickled. The only code that runs is the user's source, verified like every file.

A model that was made elsewhere takes the columns as they are (`feed`); its transforms, fitted on
the example rows, only warn of unusual values.

Legend: B rows, C outputs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from safetensors import numpy as safe_numpy

from eagleray import code, engines, errors
from eagleray.engines import absent, feed, placement
from eagleray.learn import features, schema, tasks
from eagleray.learn.schema import Columns, ExtraFields, Raw, Schema
from eagleray.state import evaluations

if TYPE_CHECKING:
    from eagleray.state.models import Registry, Version

FORMAT, OTHER_ENGINES, DECIDED, ENSEMBLE = FORMATS = 1, 2, 3, 4
"""Of `bundle.json`. Releases that know only torch read the first, and refuse the second; those that
know no threshold, costs or calibration refuse the third, as they would give other answers; those
that know no ensembles refuse the fourth."""
PREDICTIONS = "predictions.parquet"
_UNREAD = ("reference.json", PREDICTIONS, evaluations.FILE)  # files not needed to predict
_OUTLINE = ("bundle.json", "transforms.safetensors", "golden.json")
GOLDEN_ROWS = 32

Form = Literal["raw", "logits", "probabilities", "values"]
"""What an engine gives: what the task's `activate` takes, or what people call so. Of two classes a
model may give the second one's alone."""


class Prediction(NamedTuple):
    """Predictions for B rows."""

    outputs: np.ndarray  # probabilities (B, C) by class; values (B,) or quantiles (B, C)
    warnings: list[list[str]]  # for each row, such as an unknown category


class Golden(NamedTuple):
    """Rows as raw JSON values by column, and their outputs at training time."""

    rows: dict[str, list[Any]]
    outputs: list[Any]


@dataclass(kw_only=True, eq=False)
class Bundle:
    """A model in memory with its transforms and schema; safe to call from several threads."""

    schema: Schema
    transforms: features.Transforms
    engine: engines.Engine
    scale: tasks.Scale
    feed: feed.Feed | None = None  # of a model made elsewhere, in place of the transforms
    others: tuple[features.Transforms, ...] = ()  # of an ensemble's members with other features
    form: Form = "raw"
    extra_fields: ExtraFields = "refuse"
    name: str = ""
    number: int = 0
    golden: Golden | None = None

    def __post_init__(self) -> None:
        self.task = tasks.of(self.schema.target)

    def predict(self, raw: Mapping[str, Raw]) -> Prediction:
        """Predict B rows of raw values by column, as they are in a table or in JSON.

        DataError for a value that its column cannot hold, CodeError if the user's model fails.
        """
        return self.predict_columns(schema.parse(self.schema, raw))

    def predict_columns(self, columns: Columns) -> Prediction:
        """Predict B rows of canonical columns, see `schema.parse`."""
        return Prediction(self._decode(self.raw_outputs(columns)), self.transforms.flags(columns))

    def raw_outputs(self, columns: Columns) -> np.ndarray:
        """The engine's outputs (B, C) for B rows of canonical columns."""
        return engines.run(self.engine, self._encode(columns))

    def remember(self, columns: Columns, target_B: np.ndarray, *, only: bool = False) -> None:
        """Leave these targets out of later answers, if the engine is such a one; `only` these."""
        if not isinstance(self.engine, engines.Remembering):
            return
        if only:
            self.engine.forget()
        self.engine.remember(self._encode(columns), target_B)

    def baselines(self) -> dict[str, Callable[[Columns], np.ndarray]]:
        """Outputs of plain models by name, which know what the engine remembers."""
        if not isinstance(self.engine, engines.Remembering):
            return {}
        plain = self.engine.baselines()
        return {name: functools.partial(self._baseline, run) for name, run in plain.items()}

    def choose_engine(self, where: str) -> None:
        """Take the faster engine for a module of torch, measured on the golden rows."""
        from eagleray.engines.torch import Torch

        if self.golden is None:
            return
        inputs = self._encode(schema.parse(self.schema, self.golden.rows))
        for engine, own in engines.parts(self.engine, inputs):
            if isinstance(engine, Torch):
                from eagleray.engines import exported

                exported.choose(engine, own, where=where)

    def verify(self) -> None:
        """Predict the golden rows; ServingError where one is off by more than the tolerance."""
        assert self.golden is not None
        got = self.predict(self.golden.rows).outputs
        expected, same = np.asarray(self.golden.outputs), self.task.reproducible
        most, off = self.engine.tolerance, error(same(got), same(expected))
        if not off <= most:
            raise errors.ServingError(
                f"{self.name} version {self.number}: golden rows must be reproduced to {most},"
                f" but are off by {off:.2g}"
            )

    def _baseline(
        self, run: Callable[[features.Inputs], np.ndarray], columns: Columns
    ) -> np.ndarray:
        return self._decode(run(self._encode(columns)))

    def _encode(self, columns: Columns) -> features.Inputs:
        inputs = (self.feed or self.transforms).apply(columns)
        return inputs | features.several.apply(self.others, columns) if self.others else inputs

    def _decode(self, raw_BC: np.ndarray) -> np.ndarray:
        """Outputs in the target's unit."""
        if self.form == "raw":
            return self.task.activate(raw_BC, self.scale)
        known_BC: np.ndarray = raw_BC.astype(np.float64)
        if self.form == "values":
            return known_BC[:, 0]
        if known_BC.shape[1] == 1:  # of two classes the second alone
            first_BC = np.zeros_like(known_BC) if self.form == "logits" else 1 - known_BC
            known_BC = np.concatenate([first_BC, known_BC], axis=1)
        return self.task.activate(known_BC, {}) if self.form == "logits" else known_BC


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to max(1, |expected|); NaN where one of them is."""
    return float(np.max(np.abs(got - expected) / np.maximum(1.0, np.abs(expected))))


def pack(
    made: Bundle, golden_rows: Mapping[str, Sequence[Any]], reference: object
) -> dict[str, bytes]:
    """The files of a bundle by path; `reference` is JSON, the statistics of the training part."""
    state, tensors = made.transforms.state()
    others, more = features.several.state(made.others)
    rows = {name: list(values) for name, values in golden_rows.items()}
    described = {
        "format": _format(made),
        "schema": made.schema.model_dump(mode="json"),
        "engine": made.engine.name,
        **made.engine.describe(),
        "feed": made.feed.model_dump(mode="json") if made.feed else None,
        "form": made.form,
        "scale": dict(made.scale),
        "transforms": state,
        "others": others,
        "extra_fields": made.extra_fields,
    }
    golden = {"rows": rows, "outputs": made.predict(rows).outputs.tolist()}
    return {
        "bundle.json": _json(described),
        "transforms.safetensors": safe_numpy.save(tensors | more),
        "reference.json": _json(reference),
        "golden.json": _json(golden),
        **made.transforms.files(),
        **made.engine.files(),
    }


def load(registry: Registry, version: Version) -> Bundle:
    """Load a version, each file verified; ServingError where the files do not make a model."""
    files = {path: registry.read(version, path) for path in version.files if path not in _UNREAD}
    where = f"{version.name} version {version.number}"
    loaded = unpack(files, where=where)
    loaded.name, loaded.number = version.name, version.number
    if placement.now().measured:
        loaded.choose_engine(where)
    return loaded


def outline(registry: Registry, version: Version) -> Bundle:
    """A version without its model: schema, transforms and golden rows, in little memory."""
    own = (path for path in version.files if path.startswith(code.FOLDER))
    files = {path: registry.read(version, path) for path in (*_OUTLINE, *own)}
    loaded = unpack(files, where=f"{version.name} version {version.number}", engine=absent.Absent())
    loaded.name, loaded.number = version.name, version.number
    return loaded


def unpack(
    files: Mapping[str, bytes], *, where: str = "bundle", engine: engines.Engine | None = None
) -> Bundle:
    """Load a model from the files that `pack` made; ServingError if they are not valid.

    An `engine` stands in for that of the files.
    """
    try:
        return _unpack(files, engine)
    except errors.EagleRayError:
        raise
    except Exception as cause:  # damaged or foreign files raise anything
        raise errors.ServingError(f"{where} must hold a model, but {cause!r}") from cause


def _unpack(files: Mapping[str, bytes], engine: engines.Engine | None) -> Bundle:
    described = json.loads(files["bundle.json"])
    if described["format"] not in FORMATS:
        law = f"bundle format must be one of {', '.join(map(str, FORMATS))}"
        raise errors.ServingError(f"{law}, but got {described['format']}")
    known = Schema.model_validate(described["schema"])
    tensors = safe_numpy.load(files["transforms.safetensors"])
    transforms = features.Transforms.from_state(
        described["transforms"], features.several.of(tensors, 0), files
    )
    outputs, taken = tasks.of(known.target).width, described.get("feed")
    return Bundle(
        schema=known,
        transforms=transforms,
        engine=engine or engines.load(described, files, transforms.shape, outputs),
        scale=described["scale"],
        feed=feed.Feed.model_validate(taken) if taken else None,
        others=features.several.from_state(described.get("others", ()), tensors, files),
        form=described.get("form", "raw"),
        extra_fields=described.get("extra_fields", "refuse"),  # older bundles lack it
        golden=Golden(**json.loads(files["golden.json"])),
    )


def _format(made: Bundle) -> int:
    target = made.schema.target
    calibrated = target.curves or target.shifts or "temperature" in made.scale
    if made.engine.name == engines.ENSEMBLE:
        return ENSEMBLE
    if target.threshold is not None or target.costs or calibrated:
        return DECIDED
    return FORMAT if made.engine.name == engines.TORCH else OTHER_ENGINES


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
