"""Models and their versions: list, compare, promote, fetch, and predict with them."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, NamedTuple

from eagleray import display, errors, storage
from eagleray.api.rollouts import Steered
from eagleray.state import batches
from eagleray.state.aliases import CHAMPION, LATEST, Event
from eagleray.state.models import Registry, Skip, Version
from eagleray.state.rollouts import Rollouts

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from eagleray import bundle
    from eagleray.api.additions import Added
    from eagleray.api.reports import Report
    from eagleray.client.runs import Cluster
    from eagleray.imported import Options
    from eagleray.predictions import Answers

MODEL_COLUMNS = ("model", "latest", "aliases")
VERSION_COLUMNS = ("version", "created", "aliases", "metric", "validation", "test")


class Difference(NamedTuple):
    """A fact in which two versions differ; None where one of them has no such fact."""

    fact: str
    left: object
    right: object


@dataclass(frozen=True)
class Move:
    """An alias that was moved, or with `dry_run` would be; `previous` is None if it is new."""

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
        store = storage.open(uri)
        self.storage, self._registry, self._rollouts = uri, Registry(store), Rollouts(store)

    def __getitem__(self, name: str) -> Model:
        """Look a model up; NotFoundError if it is absent or has no version."""
        self._registry.latest(name)
        return Model(name, self._registry, self._rollouts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry.models())

    def __len__(self) -> int:
        return len(self._registry.models())

    def __repr__(self) -> str:
        return f"<Models in {self.storage}: {', '.join(self) or 'none'}>"

    def _repr_html_(self) -> str:
        rows = [(name, latest, pairs(aliases)) for name, latest, aliases in self.table()]
        return display.page(f"Models in {self.storage}", display.table(MODEL_COLUMNS, rows))

    def add(
        self,
        name: str,
        file: str | Path,
        example: pd.DataFrame | str | Path,
        *,
        engine: str,
        options: Options | None = None,
        dry_run: bool = False,
    ) -> Added:
        """Add a model that was made elsewhere as the next version of `name`; no alias moves.

        Args:
            name: the model, a new one or one that has versions.
            file: the model's file.
            example: rows as clients send them, best of the training data: the schema, golden rows
                and reference statistics are made of them. A table or a file.
            engine: what runs it: `onnx`, `lightgbm`, `export` (a program of `torch.export`).
            options: what the file does not say, see `eagleray.imported.Options`.
            dry_run: only make the bundle.

        Raises:
            UserError: the file is no such model, or does not fit the example.
            DataError: the example cannot be read, or has values that the model cannot take.
        """
        from eagleray.api import additions

        rows = Path(example) if isinstance(example, str | Path) else example
        return additions.add(
            self._registry,
            name,
            Path(file),
            rows,
            engine=engine,
            options=options,
            dry_run=dry_run,
        )

    def table(self) -> list[tuple[str, int, dict[str, int]]]:
        """Name, latest version and aliases of each model."""
        registry = self._registry
        return [(name, registry.latest(name), registry.aliases(name).values) for name in self]


class Model(Steered):
    """One model: numbered versions, and aliases that point to them.

    A version is named by its number, an alias, or `latest`.
    """

    def __init__(self, name: str, registry: Registry, rollouts: Rollouts) -> None:
        super().__init__(name, registry, rollouts)
        self._loaded: bundle.Bundle | None = None

    @property
    def aliases(self) -> dict[str, int]:
        """Version numbers by alias."""
        return self._registry.aliases(self.name).values

    def version(self, reference: str | int = CHAMPION) -> Version:
        """A version with its manifest: metrics, configuration, lineage. NotFoundError if absent."""
        return self._registry.resolve(self.name, str(reference))

    def versions(self, skip: Skip | None = None) -> list[Version]:
        """All versions, oldest first; `skip` is called with the error of each unreadable one."""
        return self._registry.versions(self.name, skip)

    def events(self) -> list[Event]:
        """Who registered and moved which version, when and why; oldest first."""
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
        """Point an alias to a version; endpoints that follow it switch within seconds.

        Args:
            reference: the version.
            alias: which alias.
            expect: the version that the alias must point to now; None for none, left out for any.
            allow_schema_change: also to a version that breaks clients of the one before.
            why: the reason, for the log.
            dry_run: only return the move.

        Raises:
            NotFoundError: there is no such version.
            UserError: the version breaks clients of the one before.
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
            NotFoundError: it has never pointed to another version.
            ConflictError: another process moved it meanwhile.
        """
        before = self.aliases.get(alias)
        after = self._registry.rollback(self.name, alias, why=why, dry_run=dry_run)
        return Move(self.name, alias, after.values[alias], before, dry_run)

    def differences(self, left: str | int, right: str | int) -> list[Difference]:
        """The columns of requests and the recorded facts in which two versions differ."""
        from eagleray import compatibility

        versions = self.version(left), self.version(right)
        changes = compatibility.compare(self._registry, *versions)
        columns = [Difference(one.what, one.before, one.after) for one in changes]
        lefts, rights = map(facts, versions)
        recorded = (Difference(k, lefts.get(k), rights.get(k)) for k in {**lefts, **rights})
        return [*columns, *(one for one in recorded if one.left != one.right)]

    def diff(self, left: str | int, right: str | int) -> pd.DataFrame:
        """The differences of two versions as a table: `fact`, `left`, `right`."""
        import pandas as pd

        return pd.DataFrame(self.differences(left, right), columns=Difference._fields)

    def report(self, reference: str | int = LATEST) -> Report:
        """How good a version is and where it fails; see `eagleray.report`."""
        from eagleray.api import reports

        return reports.report(f"{self.name}/{reference}", self._rollouts.store.uri)

    def predict(
        self, frame: pd.DataFrame, version: str | int = CHAMPION, *, repeated: Sequence[str] = ()
    ) -> pd.DataFrame:
        """Predict the rows of a table without a server, as `eagleray predict` does.

        Args:
            frame: the model's columns, and any others.
            version: which version.
            repeated: columns of the table to repeat before the answers.

        Returns:
            For each row `label`, `probability` and the probability of each class, or the `value`
            of a regression; then `warnings`, and `error`, the reason why a row was not predicted.

        Raises:
            DataError: a column is absent.
            NotFoundError: there is no such version.
        """
        return self.answers(frame, version, repeated=repeated).table()

    def predict_files(
        self,
        source: str,
        output: str,
        version: str | int = CHAMPION,
        *,
        options: batches.Options | None = None,
        address: str | None = None,
        cluster: Cluster | None = None,
        out: Console | None = None,
    ) -> batches.Result:
        """Predict files on Ray, in parts, as `eagleray predict --input … --output …` does.

        The same call goes on where one was killed, and returns the result of one that has ended.

        Args:
            source: CSV or Parquet: `s3://bucket/key`, a prefix or folder, or a pattern with `*`.
            output: `s3://bucket/prefix` or a folder, for these predictions alone.
            version: which version.
            options: how to write them.
            address: a Ray cluster to join, `host:6379`, or the dashboard of one to submit to,
                `http://host:8265`; by default Ray starts on this machine.
            cluster: another cluster to submit to, see `eagleray.api.clusters.cluster`.
            out: where to print progress.

        Raises:
            DataError: the input has no files, lacks a column, cannot be read, or too many rows
                cannot be predicted.
            ConflictError: the output has predictions of other files, or by other means.
            NotFoundError: there is no such version.
            StorageUnavailableError: storage stays away; the same call goes on later.
            ClusterError: Ray fails, or a submitted run did not succeed.
        """
        from eagleray.api import batch

        places = batch.Places(self._rollouts.store.uri, source, output)
        options, chosen = options or batches.Options(), self.version(version)
        return batch.predict(chosen, places, options, address=address, cluster=cluster, out=out)

    def answers(
        self, frame: pd.DataFrame, version: str | int = CHAMPION, *, repeated: Sequence[str] = ()
    ) -> Answers:
        """Predict the rows of a table, each answer in the endpoint's form; see `predict`."""
        from eagleray import bundle, predictions

        chosen = self.version(version)
        if self._loaded is None or self._loaded.number != chosen.number:
            self._loaded = bundle.load(self._registry, chosen)
        return predictions.predict(self._loaded, frame, repeated=repeated)

    def pull(self, reference: str | int, folder: Path) -> int:
        """Write the files of a version, each verified, into a new folder; return their count."""
        version = self.version(reference)
        self._registry.pull(version, folder)
        return len(version.files)

    def pull_predictions(self, reference: str | int, file: Path) -> int:
        """Write truth and prediction of the test part as CSV or Parquet; return the number of rows.

        Raises:
            UserError: the file exists.
            NotFoundError: the version has no predictions.
        """
        import pandas as pd

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
        table = pd.read_parquet(io.BytesIO(data))
        with files.replacing(file) as unfinished:
            if file.suffix == ".parquet":
                unfinished.write_bytes(data)
            else:
                table.to_csv(unfinished, index=False, lineterminator="\n")
        return len(table)

    def table(self, skip: Skip | None = None) -> list[dict[str, Any]]:
        """For each version its number, creation time, aliases, metrics and warnings."""
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
        lines = [f"skipped: {cause}" for cause in skipped]
        for one in table:
            lines += warnings(self.name, one["version"], one["warnings"])
        versions = display.table(VERSION_COLUMNS, map(row, table))
        return display.page(repr(self)[1:-1], display.notes(lines), versions)


def models(storage: str = storage.EMBEDDED) -> Models:
    """The models that a storage holds.

    Args:
        storage: `s3://bucket[/prefix]` or `file:///folder`; that of `eagleray local up` by default.
    """
    return Models(storage)


def facts(version: Version) -> dict[str, object]:
    """All that is on record about a version, under dotted keys."""
    files = {path: f"{blob.sha256[:12]} {blob.size} bytes" for path, blob in version.files.items()}
    recorded = dict(_flat("", {"created": version.created, **version.manifest}))
    return recorded | {f"file {path}": text for path, text in files.items()}


def row(version: Mapping[str, Any]) -> tuple[object, ...]:
    """The cells of a version of `Model.table`, in the order of `VERSION_COLUMNS`."""
    metric, metrics = version["metric"], version["metrics"] or {}
    scores = (metrics.get(part, {}).get(metric) for part in ("validation", "test"))
    return version["version"], version["created"], ", ".join(version["aliases"]), metric, *scores


def warnings(model: str, version: int, texts: Iterable[str] | None) -> list[str]:
    """A line for each warning of a version."""
    return [f"WARNING: {model} version {version} {text}" for text in texts or ()]


def pairs(values: Mapping[str, int]) -> str:
    """Format as `champion=3 shadow=4`."""
    return " ".join(f"{name}={number}" for name, number in values.items())


def _flat(key: str, value: Any) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, part in value.items():
        yield from _flat(f"{key}.{name}".removeprefix("."), part)
