"""Models and their versions: list, compare, promote, fetch, and predict with them."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, NamedTuple

from eagleray import errors, look, storage
from eagleray.state.aliases import CHAMPION
from eagleray.state.events import Event
from eagleray.state.models import Registry, Skip, Version

if TYPE_CHECKING:
    import pandas as pd

    from eagleray import bundle
    from eagleray.api.prediction import Answers

EMBEDDED = "s3://eagleray"
"""The bucket of the server that `eagleray local up` starts."""


class Difference(NamedTuple):
    """A fact in which two versions differ; None where one of them has no such fact."""

    fact: str
    left: object
    right: object


@dataclass(frozen=True)
class Move:
    """An alias that was moved, or with `dry_run` would have been.

    Attributes:
        version: where it points.
        previous: where it pointed before; None where it is new.
    """

    model: str
    alias: str
    version: int
    previous: int | None
    dry_run: bool

    def __str__(self) -> str:
        verb = "would point" if self.dry_run else "points"
        before = self.previous or "none"
        return f"{self.model}: {self.alias} {verb} to version {self.version}, before: {before}"


class Models:
    """The models of one storage, by name."""

    def __init__(self, uri: str) -> None:
        self.storage = uri
        self._registry = Registry(storage.open(uri))

    def __getitem__(self, name: str) -> Model:
        """The model of a name.

        Raises:
            NotFoundError: there is none, or it has no version.
        """
        self._registry.latest(name)
        return Model(name, self._registry)

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry.models())

    def __len__(self) -> int:
        return len(self._registry.models())

    def __repr__(self) -> str:
        return f"<Models in {self.storage}: {', '.join(self) or 'none'}>"

    def _repr_html_(self) -> str:
        rows = [(name, latest, pairs(aliases)) for name, latest, aliases in self.table()]
        return look.page(
            f"Models in {self.storage}", look.table(("model", "latest", "aliases"), rows)
        )

    def table(self) -> list[tuple[str, int, dict[str, int]]]:
        """Name, latest version and aliases of each model."""
        known = self._registry
        return [(name, known.latest(name), known.aliases(name).values) for name in self]


class Model:
    """One model: numbered versions, and aliases that point to them.

    A version is named by its number, an alias, or `latest`.
    """

    def __init__(self, name: str, registry: Registry) -> None:
        self.name = name
        self._registry = registry
        self._loaded: bundle.Bundle | None = None

    @property
    def aliases(self) -> dict[str, int]:
        """Where each alias points now."""
        return self._registry.aliases(self.name).values

    def version(self, reference: str | int = CHAMPION) -> Version:
        """One version with its manifest: metrics, configuration, lineage, warnings.

        Raises:
            NotFoundError: nothing is called so.
        """
        return self._registry.resolve(self.name, str(reference))

    def versions(self, skip: Skip | None = None) -> list[Version]:
        """All versions, the oldest first.

        Args:
            skip: called with the error of each that cannot be read, which is left out then.
        """
        return self._registry.versions(self.name, skip)

    def events(self) -> list[Event]:
        """Who registered and moved what, when and why; the oldest first."""
        return self._registry.events(self.name)

    def promote(
        self,
        reference: str | int,
        alias: str = CHAMPION,
        *,
        expect: int | EllipsisType | None = ...,
        allow_schema_change: bool = False,
        why: str = "",
        dry_run: bool = False,
    ) -> Move:
        """Point an alias to a version; endpoints that follow it answer with it within seconds.

        Args:
            reference: the version.
            alias: which alias.
            expect: the version that the alias must point to now; None for none, left out for any.
            allow_schema_change: also to a version that breaks clients of the one before.
            why: the reason, for the log.
            dry_run: only show the move.

        Raises:
            NotFoundError: there is no such version.
            UserError: clients would notice.
            ConflictError: the alias does not point where it must.
        """
        from eagleray import compatibility

        number, before = self.version(reference).number, self.aliases.get(alias)
        check = functools.partial(compatibility.check, self._registry, alias)
        self._registry.promote(
            self.name,
            number,
            alias,
            expect=expect,
            check=None if allow_schema_change else check,
            why=why,
            dry_run=dry_run,
        )
        return Move(self.name, alias, number, before, dry_run)

    def rollback(self, alias: str = CHAMPION, *, why: str = "", dry_run: bool = False) -> Move:
        """Point an alias to the version it pointed to before, whatever its columns.

        Raises:
            NotFoundError: it never pointed elsewhere.
            ConflictError: somebody else moved it meanwhile.
        """
        before = self.aliases.get(alias)
        after = self._registry.rollback(self.name, alias, why=why, dry_run=dry_run)
        return Move(self.name, alias, after.values[alias], before, dry_run)

    def differences(self, left: str | int, right: str | int) -> list[Difference]:
        """The columns of requests and the facts on record in which two versions differ."""
        from eagleray import compatibility

        versions = self.version(left), self.version(right)
        schemas = [compatibility.schema(self._registry, version) for version in versions]
        columns: list[Difference] = []
        if schemas[0] and schemas[1]:
            changes = compatibility.changes(schemas[0], schemas[1])
            columns = [Difference(one.what, one.before, one.after) for one in changes]
        sides = [facts(version) for version in versions]
        keys = dict.fromkeys([*sides[0], *sides[1]])
        recorded = [Difference(key, sides[0].get(key), sides[1].get(key)) for key in keys]
        return [*columns, *(one for one in recorded if one.left != one.right)]

    def diff(self, left: str | int, right: str | int) -> pd.DataFrame:
        """The differences of two versions as a table: `fact`, `left`, `right`."""
        import pandas as pd

        return pd.DataFrame(self.differences(left, right), columns=Difference._fields)

    def predict(
        self,
        frame: pd.DataFrame,
        version: str | int = CHAMPION,
        *,
        repeated: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Predict rows of a table without a server, as `eagleray predict` does.

        Args:
            frame: the model's columns, and any others.
            version: which version.
            repeated: columns of the table to repeat before the answers.

        Returns:
            For each row `label`, `probability` and the probability of each class, or `value` of a
            regression; then `warnings`, and `error`, which says what is wrong with a row that the
            model cannot take.

        Raises:
            DataError: a column is absent.
            NotFoundError: there is no such version.
        """
        return self.answers(frame, version, repeated=repeated).table()

    def answers(
        self,
        frame: pd.DataFrame,
        version: str | int = CHAMPION,
        *,
        repeated: Sequence[str] = (),
    ) -> Answers:
        """The same as the endpoint would answer; see `predict`."""
        from eagleray.api import prediction

        return prediction.predict(
            self._bundle(self.version(version).number), frame, repeated=repeated
        )

    def pull(self, reference: str | int, folder: Path) -> None:
        """Write the files of a version, each verified, into a new folder."""
        self._registry.pull(self.version(reference), folder)

    def pull_predictions(self, reference: str | int, file: Path) -> int:
        """Write truth and prediction for each row of the test part into a new CSV or Parquet file.

        Returns:
            The number of rows.

        Raises:
            UserError: the file is there already.
            NotFoundError: the version has no predictions.
        """
        import pyarrow.parquet

        from eagleray.bundle import PREDICTIONS
        from eagleray.storage import files

        version = self.version(reference)
        if file.exists():
            raise errors.UserError(f"pull: must go to a new file, but {file} is there already")
        if PREDICTIONS not in version.files:
            raise errors.NotFoundError(
                f"model {version.name}, version {version.number}: was registered by a release that "
                "kept no predictions of the test part; write the part with `eagleray split` and "
                "predict it with `eagleray predict`"
            )
        data = self._registry.read(version, PREDICTIONS)
        table = pyarrow.parquet.read_table(io.BytesIO(data))
        with files.replacing(file) as unfinished:
            if file.suffix == ".parquet":
                unfinished.write_bytes(data)
            else:
                table.to_pandas().to_csv(unfinished, index=False, lineterminator="\n")
        return int(table.num_rows)

    def table(self, skip: Skip | None = None) -> list[dict[str, Any]]:
        """A row for each version: when it was made, its aliases, metrics and warnings."""
        aliases = self.aliases
        return [
            {
                "version": version.number,
                "created": version.created,
                "aliases": [alias for alias, number in aliases.items() if number == version.number],
                **{key: version.manifest.get(key) for key in ("metric", "metrics", "warnings")},
            }
            for version in self.versions(skip)
        ]

    def __repr__(self) -> str:
        return f"<Model {self.name}: {pairs(self.aliases) or 'no alias is set'}>"

    def _repr_html_(self) -> str:
        skipped: list[Exception] = []
        table = self.table(skipped.append)
        rows = [
            (one["version"], one["created"], ", ".join(one["aliases"]), *selecting(one))
            for one in table
        ]
        warnings = [
            f"WARNING: version {one['version']} {text}"
            for one in table
            for text in one["warnings"] or []
        ]
        warnings += [f"skipped: {cause}" for cause in skipped]
        headings = ("version", "created", "aliases", "metric", "validation", "test")
        return look.page(repr(self)[1:-1], look.notes(warnings), look.table(headings, rows))

    def _bundle(self, number: int) -> bundle.Bundle:
        """The bundle of a version; the last one that was used is still there."""
        from eagleray import bundle

        if self._loaded is None or self._loaded.number != number:
            self._loaded = bundle.load(self._registry, self.version(number))
        return self._loaded


def models(storage: str = EMBEDDED) -> Models:
    """The models that a storage holds.

    Args:
        storage: `s3://bucket[/prefix]` or `file:///folder`; that of `eagleray local up` by default.
    """
    return Models(storage)


def facts(version: Version) -> dict[str, object]:
    """All that is on record about a version, under dotted keys."""
    files = {path: f"{blob.sha256[:12]} {blob.size} bytes" for path, blob in version.files.items()}
    found = dict(_flat("", {"created": version.created, **version.manifest}))
    return found | {f"file {path}": shown for path, shown in files.items()}


def selecting(row: dict[str, Any]) -> tuple[str | None, float | None, float | None]:
    """The metric that selected a version, and its validation and test value, where on record."""
    metric, metrics = row["metric"], row["metrics"] or {}
    validation, test = (metrics.get(part, {}).get(metric) for part in ("validation", "test"))
    return metric, validation, test


def pairs(values: dict[str, int]) -> str:
    """`champion=3 shadow=4`."""
    return " ".join(f"{name}={number}" for name, number in values.items())


def _flat(key: str, value: Any) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, part in value.items():
        yield from _flat(f"{key}.{name}".removeprefix("."), part)
