"""Predictions of files on Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eagleray import errors
from eagleray.state import batches
from eagleray.state.models import Registry, Version

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Places:
    """URIs: of the storage that has the model, of the files to predict, and of the output."""

    storage: str
    source: str
    output: str


def predict(
    registry: Registry,
    version: Version,
    places: Places,
    *,
    options: batches.Options,
    address: str | None = None,
    out: Console | None = None,
) -> batches.Result:
    """Predict files by a version; see `Model.predict_files`."""
    from rich import console

    from eagleray import compatibility
    from ray_jobs.batch import driver, plan
    from ray_jobs.batch.limit import Limit
    from ray_jobs.batch.parts import Job

    if address is not None and address.startswith(("http://", "https://")):
        law = "must be a Ray cluster to join, host:6379"
        raise errors.UserError(f"--address: {law}, but got {address}")
    limit = Limit.parse(options.max_errors)
    known = compatibility.schema(registry, version)
    if known is None:
        law = "a version that can be loaded is needed"
        raise errors.ServingError(f"{version.name} version {version.number}: {law}")
    output = plan.place(places.output)
    made = plan.make(known, version, places.source, output, options)
    plan.make_folder(output)
    return driver.run(
        Job(made, places.storage, output),
        limit,
        out or console.Console(quiet=True),
        address,
    )
