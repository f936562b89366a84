"""A bundle: one trained model and all files that it needs to predict.

    bundle.json               format, schema, model options, state of the transforms
    model.safetensors         weights
    transforms.safetensors    what the transforms learned from the training part
    reference.json            statistics of the training part, for drift
    golden.json               rows, and the outputs that a replica must reproduce
    code/{module}.py          source of the user's architecture, if any
    predictions.parquet       truth and prediction for each row of the test part, for people

Nothing is unpickled. The only code that runs is the user's source, verified like every file.

Legend: B rows, C outputs.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import numpy as safe_numpy
from safetensors import torch as safe_torch

from eagleray import code, errors
from eagleray.learn import features, models, schema, tasks
from eagleray.learn.schema import Columns, ExtraFields, Raw, Schema

if TYPE_CHECKING:
    from eagleray.state.models import Registry, Version

FORMAT = 1
PREDICTIONS = "predictions.parquet"
_UNREAD = ("reference.json", PREDICTIONS)  # files not needed to predict
GOLDEN_ROWS = 32
TOLERANCE = 1e-5
"""Largest error of a golden output, relative to max(1, |output|). Float32 sums in another order, or
on another processor, differ by less."""


class Prediction(NamedTuple):
    """Predictions for B rows."""

    outputs: np.ndarray  # probabilities (B, C) by class, or values (B,) in the target's unit
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
    options: models.Options
    model: torch.nn.Module
    scale: tasks.Scale
    custom: code.Code | None = None
    extra_fields: ExtraFields = "refuse"
    name: str = ""
    number: int = 0
    golden: Golden | None = None

    def __post_init__(self) -> None:
        self.model.eval()
        self.task = tasks.of(self.schema.target)

    def predict(self, raw: Mapping[str, Raw]) -> Prediction:
        """Predict B rows of raw values by column, as they are in a table or in JSON.

        DataError for a value that its column cannot hold, CodeError if the user's model fails.
        """
        return self.predict_columns(schema.parse(self.schema, raw))

    def predict_columns(self, columns: Columns) -> Prediction:
        """Predict B rows of canonical columns, see `schema.parse`."""
        inputs = {name: tensor(array) for name, array in self.transforms.apply(columns).items()}
        with torch.inference_mode():
            raw_BC = self.model(inputs)
        return Prediction(
            self.task.activate(raw_BC.double().numpy(), self.scale),
            self.transforms.flags(columns),
        )

    def verify(self) -> None:
        """Predict the golden rows; ServingError where an error is above `TOLERANCE`."""
        assert self.golden is not None
        got = self.predict(self.golden.rows).outputs
        expected = np.asarray(self.golden.outputs)
        off = np.abs(got - expected) / np.maximum(1.0, np.abs(expected))
        if not np.all(off <= TOLERANCE):
            raise errors.ServingError(
                f"{self.name} version {self.number}: golden rows must be reproduced to {TOLERANCE},"
                f" but are off by {np.nanmax(off):.2g}"
            )


def tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the array's memory, which is read-only in Ray's object store."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def pack(
    trained: Bundle, golden_rows: Mapping[str, Sequence[Any]], reference: object
) -> dict[str, bytes]:
    """The files of a bundle by path; `reference` is JSON, the statistics of the training part."""
    state, tensors = trained.transforms.state()
    rows = {name: list(values) for name, values in golden_rows.items()}
    described = {
        "format": FORMAT,
        "schema": trained.schema.model_dump(mode="json"),
        "model": trained.options.model_dump(mode="json"),
        "scale": dict(trained.scale),
        "transforms": state,
        "code": {"name": trained.custom.name} if trained.custom else None,
        "extra_fields": trained.extra_fields,
    }
    golden = {"rows": rows, "outputs": trained.predict(rows).outputs.tolist()}
    weights = {name: value.contiguous() for name, value in trained.model.state_dict().items()}
    files = {
        "bundle.json": _json(described),
        "model.safetensors": safe_torch.save(weights),
        "transforms.safetensors": safe_numpy.save(tensors),
        "reference.json": _json(reference),
        "golden.json": _json(golden),
    }
    if trained.custom:
        files[trained.custom.path] = trained.custom.source.encode()
    return files


def load(registry: Registry, version: Version) -> Bundle:
    """Load a version, each file verified; ServingError where the files do not make a model."""
    files = {path: registry.read(version, path) for path in version.files if path not in _UNREAD}
    loaded = unpack(files, where=f"{version.name} version {version.number}")
    loaded.name, loaded.number = version.name, version.number
    return loaded


def unpack(files: Mapping[str, bytes], *, where: str = "bundle") -> Bundle:
    """Load the files that `pack` made; ServingError where they do not make a model."""
    try:
        return _unpack(files)
    except errors.EagleRayError:
        raise
    except Exception as cause:  # damaged or foreign files raise anything
        raise errors.ServingError(f"{where} must hold a model, but {cause!r}") from cause


def _unpack(files: Mapping[str, bytes]) -> Bundle:
    described = json.loads(files["bundle.json"])
    if described["format"] != FORMAT:
        raise errors.ServingError(f"bundle format must be {FORMAT}, but got {described['format']}")
    known = Schema.model_validate(described["schema"])
    transforms = features.Transforms.from_state(
        described["transforms"], safe_numpy.load(files["transforms.safetensors"])
    )
    outputs, options = tasks.of(known.target).width, models.parse(described["model"])
    custom = code.from_files(described["code"]["name"], files) if described["code"] else None
    model = models.build(options, transforms.shape, outputs, custom=custom)
    model.load_state_dict(safe_torch.load(files["model.safetensors"]))
    return Bundle(
        schema=known,
        transforms=transforms,
        options=options,
        model=model,
        scale=described["scale"],
        custom=custom,
        extra_fields=described.get("extra_fields", "refuse"),  # older bundles lack it
        golden=Golden(**json.loads(files["golden.json"])),
    )


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
