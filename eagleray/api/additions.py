"""Models that were made elsewhere, added to a registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagleray import errors, names

if TYPE_CHECKING:
    import pandas as pd

    from eagleray.imported import Options
    from eagleray.state.models import Registry


@dataclass(frozen=True)
class Added:
    """A version that was added, or with `dry_run` would be; then its number is None.

    Attributes:
        classes: in the order of the model's outputs; empty where it predicts numbers.
        metrics: on the example, if it has the truth.
        notes: what looks odd about the example.
    """

    model: str
    version: int | None
    task: str
    classes: tuple[str, ...]
    metrics: dict[str, float]
    warnings: list[str]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        what = f"version {self.version}" if self.version else "a version would be added"
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        found = f"; on the example {scores}" if scores else ""
        return f"{self.model}: {what}; {', '.join([self.task, *self.classes])}{found}"


def add(
    registry: Registry,
    name: str,
    file: Path,
    example: pd.DataFrame | Path,
    *,
    engine: str,
    options: Options | None = None,
    dry_run: bool = False,
) -> Added:
    """Make a bundle of a model's file, and register it; see `Models.add`."""
    from eagleray import imported
    from eagleray.tabular import load

    names.check("model", name)
    for path in (file, example):
        if isinstance(path, Path) and not path.is_file():
            near = names.near(path.name, [one.name for one in path.parent.glob("*")])
            raise errors.UserError(f"{path}: a file is needed, but got none{near}")
    frame = load.file(example, example.parent) if isinstance(example, Path) else example
    try:
        made = imported.make(engine, file.read_bytes(), frame, options or imported.Options())
    except errors.DataError as cause:
        raise errors.DataError(*(f"{file}: {one}" for one in cause.problems)) from cause
    except errors.UserError as cause:
        raise errors.UserError(f"{file}: {cause}") from cause
    number = None if dry_run else _register(registry, name, made.files, made.manifest)
    return Added(
        model=name,
        version=number,
        task=made.manifest["task"],
        classes=made.classes,
        metrics=made.manifest["metrics"].get("example", {}),
        warnings=made.manifest["warnings"],
        notes=made.notes,
    )


def _register(
    registry: Registry, name: str, files: dict[str, bytes], manifest: dict[str, Any]
) -> int:
    """The number of the version; the same file, example and options have only one."""
    lineage = manifest["lineage"]
    version = registry.register(
        name, files, manifest, same=lambda other: other.manifest.get("lineage") == lineage
    )
    return version.number
