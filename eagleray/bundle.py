"""A bundle: one trained model, portable, and what it needs to answer by itself.

    bundle.json               format, schema, model options, state of the transforms
    model.safetensors         weights
    transforms.safetensors    what the transforms learned from the training part
    reference.json            statistics of the training part, for drift
    golden.json               rows, and the outputs that a replica must give for them
    code/{module}.py          source of the user's architecture, where there is one
    predictions.parquet       truth and prediction for each row of the test part, for people

Weights and statistics are data; nothing is unpickled. The user's own source is the one thing that
runs, and it is stored and verified as all files are.

Legend: B rows, C outputs.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import numpy as safe_numpy
from safetensors import torch as safe_torch

from eagleray import code, errors
from eagleray.learn import features, models, schema, tasks

if TYPE_CHECKING:
    from eagleray.state.models import Registry, Version

FORMAT = 1
PREDICTIONS = "predictions.parquet"
_UNREAD = ("reference.json", PREDICTIONS)
"""Files that answering does without."""
GOLDEN_ROWS = 32
TOLERANCE = 1e-5
"""How far a golden output may be off, relative to the larger of 1 and its size: float32 sums in
another order, on another processor, differ by less."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of B rows.

    Attributes:
        outputs: what the task makes of them, see `tasks.Task.activate`: probabilities (B, C) in
            the order of the target's classes, or values (B,) in the target's unit.
        warnings: for each row what was odd about it, such as an unknown category.
    """

    outputs: np.ndarray
    warnings: list[list[str]]


class Bundle:
    """A model in memory with its transforms and schema; safe to call from several threads."""

    def __init__(
        self,
        *,
        schema: schema.Schema,
        transforms: features.Transforms,
        options: models.Options,
        model: torch.nn.Module,
        scale: tasks.Scale,
        custom: code.Code | None = None,
        extra_fields: schema.ExtraFields = "refuse",
    ) -> None:
        self.name, self.number = "", 0
        self.schema, self.transforms, self.options = schema, transforms, options
        self.model = model.eval()
        self.scale, self.custom = scale, custom
        self.extra_fields = extra_fields
        self.task = tasks.of(schema.target)
        self.golden: Golden | None = None

    def predict(self, raw: Mapping[str, schema.Raw]) -> Prediction:
        """Outputs for B rows given as raw values by column, as they come from a table or from JSON.

        Raises:
            DataError: a value that its column cannot hold.
            CodeError: the user's model fails.
        """
        return self.predict_columns(schema.parse(self.schema, raw))

    def predict_columns(self, columns: schema.Columns) -> Prediction:
        """Outputs for B rows of canonical columns, see `schema.parse`."""
        inputs = {name: tensor(array) for name, array in self.transforms.apply(columns).items()}
        with torch.inference_mode():
            raw_BC = self.model(inputs)
        return Prediction(
            self.task.activate(raw_BC.double().numpy(), self.scale),
            self.transforms.flags(columns),
        )

    def verify(self) -> None:
        """Reproduce the golden rows.

        Raises:
            ServingError: an output is further off than `TOLERANCE`.
        """
        assert self.golden is not None
        got = self.predict(self.golden.rows).outputs
        expected = np.asarray(self.golden.outputs)
        off = np.abs(got - expected) / np.maximum(1.0, np.abs(expected))
        if not np.all(off <= TOLERANCE):
            raise errors.ServingError(
                f"{self.name} version {self.number}: golden rows must be reproduced to {TOLERANCE},"
                f" but are off by {np.nanmax(off):.2g}"
            )


@dataclass(frozen=True)
class Golden:
    """Rows as raw JSON values by column, and the outputs at training time."""

    rows: dict[str, list[Any]]
    outputs: list[Any]


def tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array's own memory; shared arrays are read-only, and models only read."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def pack(
    made: Bundle, golden_rows: Mapping[str, Sequence[Any]], reference: object
) -> dict[str, bytes]:
    """The files of a bundle, ready for `Registry.register`.

    Args:
        made: the trained model.
        golden_rows: raw values by column of a few rows, as JSON may hold them.
        reference: statistics of the training part, as JSON may hold them.
    """
    state, tensors = made.transforms.state()
    rows = {name: list(values) for name, values in golden_rows.items()}
    described = {
        "format": FORMAT,
        "schema": made.schema.model_dump(mode="json"),
        "model": made.options.model_dump(mode="json"),
        "scale": dict(made.scale),
        "transforms": state,
        "code": {"name": made.custom.name} if made.custom else None,
        "extra_fields": made.extra_fields,
    }
    golden = {"rows": rows, "outputs": made.predict(rows).outputs.tolist()}
    weights = {name: value.contiguous() for name, value in made.model.state_dict().items()}
    files = {
        "bundle.json": _json(described),
        "model.safetensors": safe_torch.save(weights),
        "transforms.safetensors": safe_numpy.save(tensors),
        "reference.json": _json(reference),
        "golden.json": _json(golden),
    }
    if made.custom:
        files[made.custom.path] = made.custom.source.encode()
    return files


def load(registry: Registry, version: Version) -> Bundle:
    """The bundle of a version, each of its files verified.

    Raises:
        StorageError: a file is missing or corrupt.
        ServingError: files that do not make a model.
    """
    files = {path: registry.read(version, path) for path in version.files if path not in _UNREAD}
    made = unpack(files, where=f"{version.name} version {version.number}")
    made.name, made.number = version.name, version.number
    return made


def unpack(files: Mapping[str, bytes], *, where: str = "bundle") -> Bundle:
    """The bundle that `pack` gave these files for.

    Raises:
        ServingError: files that do not make a model.
    """
    try:
        return _unpack(files)
    except errors.EagleRayError:
        raise
    except Exception as cause:  # one door for all that damaged or foreign files can do
        raise errors.ServingError(f"{where} must hold a model, but {cause!r}") from cause


def _unpack(files: Mapping[str, bytes]) -> Bundle:
    described = json.loads(files["bundle.json"])
    if described["format"] != FORMAT:
        raise errors.ServingError(f"bundle format must be {FORMAT}, but got {described['format']}")
    known = schema.Schema.model_validate(described["schema"])
    transforms = features.Transforms.from_state(
        described["transforms"], safe_numpy.load(files["transforms.safetensors"])
    )
    outputs, options = tasks.of(known.target).width, models.parse(described["model"])
    custom = None
    if described["code"]:
        custom = code.from_files(described["code"]["name"], files)
    model = models.build(options, transforms.shape, outputs, custom=custom)
    model.load_state_dict(safe_torch.load(files["model.safetensors"]))
    made = Bundle(
        schema=known,
        transforms=transforms,
        options=options,
        model=model,
        scale=described["scale"],
        custom=custom,
        extra_fields=described.get("extra_fields", "refuse"),  # older bundles do not say
    )
    made.golden = Golden(**json.loads(files["golden.json"]))
    return made


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
