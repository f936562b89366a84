"""`eagleray models …`: list, compare, promote and fetch versions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from eagleray.cli.output import emit

if TYPE_CHECKING:
    from eagleray.schema import Schema
    from eagleray.state.aliases import Aliases
    from eagleray.state.models import Registry, Version

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, compare, promote and fetch versions.",
)

Name = Annotated[str, typer.Argument(help="The model.")]
Reference = Annotated[str, typer.Argument(help="A number, an alias, or latest.")]
Alias = Annotated[str, typer.Option(help="The alias to move.")]
Why = Annotated[str, typer.Option(help="The reason, for the log.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the move, and move nothing.")]
Storage = Annotated[
    str, typer.Option(help="s3://bucket[/prefix] or file:///path.", envvar="EAGLERAY_STORAGE")
]
HERE = "s3://eagleray"


class Difference(NamedTuple):
    """A fact in which two versions differ; None where one of them has no such fact."""

    fact: str
    left: object
    right: object


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="One model: list its versions.")] = None,
    storage: Storage = HERE,
    as_json: Json = False,
) -> None:
    """List the models, or the versions of one."""
    registry = _registry(storage)
    if name is not None:
        _list_versions(registry, name, as_json)
        return
    found = [
        (model, registry.resolve(model, "latest").number, registry.aliases(model).values)
        for model in registry.models()
    ]
    rows = [dict(zip(("name", "latest", "aliases"), model, strict=True)) for model in found]
    table = [(model, latest, _pairs(values)) for model, latest, values in found]
    emit(rows, as_json, table=[("MODEL", "LATEST", "ALIASES"), *table])


@app.command()
def show(
    name: Name, version: Reference = "latest", storage: Storage = HERE, as_json: Json = False
) -> None:
    """Show all that is on record about a version."""
    found = _registry(storage).resolve(name, version)
    facts = {fact: value for fact, value in _facts(found).items() if fact != "warnings"}
    emit(found, as_json, table=[("version", found.number), *facts.items()])
    _warn(found)


@app.command()
def diff(
    name: Name, left: Reference, right: Reference, storage: Storage = HERE, as_json: Json = False
) -> None:
    """Compare two versions: columns, configuration, metrics, lineage, files."""
    from eagleray import compatibility

    registry = _registry(storage)
    versions = registry.resolve(name, left), registry.resolve(name, right)
    schemas = [compatibility.schema(registry, version) for version in versions]
    found = [*differences_of_schemas(*schemas), *differences(*versions)]
    heading = ("FACT", *(f"VERSION {version.number}" for version in versions))
    rows = [difference._asdict() for difference in found]
    emit(rows, as_json, table=[heading, *found])


@app.command()
def promote(
    name: Name,
    version: Reference,
    alias: Alias = "champion",
    expect: Annotated[
        str | None,
        typer.Option(metavar="N", help="Only if the alias points to this version now, or to none."),
    ] = None,
    allow_schema_change: Annotated[
        bool,
        typer.Option(
            "--allow-schema-change", help="Also if clients of the version before would notice."
        ),
    ] = False,
    why: Why = "",
    dry_run: DryRun = False,
    storage: Storage = HERE,
    as_json: Json = False,
) -> None:
    """Point an alias, champion unless told otherwise, to a version."""
    from eagleray import compatibility

    registry = _registry(storage)
    found = registry.resolve(name, version)
    before = registry.aliases(name)
    check = functools.partial(compatibility.check, registry, alias)
    after = registry.promote(
        name,
        found.number,
        alias,
        expect=_expected(expect),
        check=None if allow_schema_change else check,
        why=why,
        dry_run=dry_run,
    )
    _report(name, alias, before, after, dry_run=dry_run, as_json=as_json)
    _warn(found)


@app.command()
def rollback(
    name: Name,
    alias: Alias = "champion",
    why: Why = "",
    dry_run: DryRun = False,
    storage: Storage = HERE,
    as_json: Json = False,
) -> None:
    """Point an alias to the version it pointed to before, whatever its columns."""
    registry = _registry(storage)
    before = registry.aliases(name)
    after = registry.rollback(name, alias, why=why, dry_run=dry_run)
    _report(name, alias, before, after, dry_run=dry_run, as_json=as_json)


@app.command()
def events(name: Name, storage: Storage = HERE, as_json: Json = False) -> None:
    """Show who registered and moved what, when and why."""
    log = _registry(storage).events(name)
    heading = ("AT", "WHAT", "VERSION", "ALIAS", "BEFORE", "BY", "WHY")
    table = [(e.at, e.action, e.number, e.alias, e.previous, e.by, e.why) for e in log]
    emit(log, as_json, table=[heading, *table])


@app.command()
def pull(
    name: Name,
    version: Reference = "champion",
    to: Annotated[
        Path | None,
        typer.Option(help="A new folder, NAME-NUMBER by default; or of --predictions a new file."),
    ] = None,
    predictions: Annotated[
        bool,
        typer.Option(
            "--predictions",
            help="Fetch row, truth and prediction of the test part alone, as CSV or .parquet.",
        ),
    ] = False,
    storage: Storage = HERE,
    as_json: Json = False,
) -> None:
    """Fetch the files of a version, each verified."""
    registry = _registry(storage)
    found = registry.resolve(name, version)
    if predictions:
        file = to or Path(f"{name}-{found.number}-predictions.csv")
        rows = _pull_predictions(registry, found, file)
        said = f"version {found.number} of {name}: {rows} rows of the test part in {file}"
        emit({"version": found.number, "file": str(file), "rows": rows}, as_json, table=[[said]])
        return
    folder = to or Path(f"{name}-{found.number}")
    registry.pull(found, folder)
    said = f"version {found.number} of {name}: {len(found.files)} files in {folder}"
    emit({"version": found.number, "folder": str(folder)}, as_json, table=[[said]])


def differences_of_schemas(left: Schema | None, right: Schema | None) -> list[Difference]:
    """Give the columns, and the facts about the target, in which two schemas differ."""
    from eagleray import compatibility

    if left is None or right is None:
        return []
    return [
        Difference(change.what, change.before, change.after)
        for change in compatibility.changes(left, right)
    ]


def differences(left: Version, right: Version) -> list[Difference]:
    """Give the facts in which two versions differ."""
    sides = _facts(left), _facts(right)
    facts = dict.fromkeys([*sides[0], *sides[1]])
    found = [Difference(fact, sides[0].get(fact), sides[1].get(fact)) for fact in facts]
    return [difference for difference in found if difference.left != difference.right]


def _expected(option: str | None) -> int | EllipsisType | None:
    from eagleray.errors import UserError

    if option is None:
        return ...
    if option != "none" and not option.isdecimal():
        raise UserError(f"--expect: must be a version's number or none, but got {option!r}")
    return None if option == "none" else int(option)


def _registry(uri: str) -> Registry:
    from eagleray import storage
    from eagleray.state.models import Registry

    return Registry(storage.open(uri))


def _list_versions(registry: Registry, name: str, as_json: bool) -> None:
    registry.resolve(name, "latest")  # a model that does not exist is an error, not an empty list
    versions, values = registry.versions(name), registry.aliases(name).values
    rows: list[dict[str, Any]] = [
        {
            "version": version.number,
            "created": version.created,
            "aliases": [alias for alias, number in values.items() if number == version.number],
            **{key: version.manifest.get(key) for key in ("metric", "metrics", "warnings")},
        }
        for version in versions
    ]
    table = [
        (row["version"], row["created"], ", ".join(row["aliases"]), *_selecting(row))
        for row in rows
    ]
    heading = ("VERSION", "CREATED", "ALIASES", "METRIC", "VALIDATION", "TEST")
    emit(rows, as_json, table=[heading, *table])
    for version in versions:
        _warn(version)


def _selecting(row: dict[str, Any]) -> tuple[str | None, float | None, float | None]:
    """The metric that selected a version, and what it came to; None where that is not on record."""
    metric, metrics = row["metric"], row["metrics"] or {}
    parts = (metrics.get(part, {}) for part in ("validation", "test"))
    validation, test = (part.get(metric) for part in parts)
    return metric, validation, test


def _warn(version: Version) -> None:
    """Say on stderr, where no program reads, what was suspicious about a winner."""
    for warning in version.manifest.get("warnings", []):
        said = f"WARNING: {version.name} version {version.number} {warning}"
        typer.secho(said, fg="red", bold=True, err=True)


def _pull_predictions(registry: Registry, version: Version, file: Path) -> int:
    """Write what a version said of the test part; a file appears whole or not at all."""
    import io

    import pyarrow.parquet

    from eagleray import bundle, errors
    from eagleray.storage import files

    if file.exists():
        raise errors.UserError(f"pull: must go to a new file, but {file} is there already")
    if bundle.PREDICTIONS not in version.files:
        raise errors.NotFoundError(
            f"model {version.name}, version {version.number}: was registered by a release that kept"
            " no predictions of the test part; write the part with `eagleray split` and predict it"
            " with `eagleray predict`"
        )
    data = registry.read(version, bundle.PREDICTIONS)
    table = pyarrow.parquet.read_table(io.BytesIO(data))
    with files.replacing(file) as unfinished:
        if file.suffix == ".parquet":
            unfinished.write_bytes(data)
        else:
            table.to_pandas().to_csv(unfinished, index=False, lineterminator="\n")
    rows: int = table.num_rows
    return rows


def _report(
    name: str, alias: str, before: Aliases, after: Aliases, *, dry_run: bool, as_json: bool
) -> None:
    old, new = before.values.get(alias), after.values[alias]
    verb = "would point" if dry_run else "points"
    said = f"{name}: {alias} {verb} to version {new}, before: {old or 'none'}"
    facts = {"model": name, "alias": alias, "version": new, "previous": old, "dry_run": dry_run}
    emit(facts, as_json, table=[[said]])


def _facts(version: Version) -> dict[str, object]:
    """Give all that is on record about a version under dotted keys."""
    files = {path: f"{blob.sha256[:12]} {blob.size} bytes" for path, blob in version.files.items()}
    facts = dict(_flat("", {"created": version.created, **version.manifest}))
    return facts | {f"file {path}": shown for path, shown in files.items()}


def _flat(key: str, value: Any) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, part in value.items():
        yield from _flat(f"{key}.{name}".removeprefix("."), part)


def _pairs(values: Mapping[str, Any]) -> str:
    """Give `champion=3 shadow=4`, numbers rounded."""
    flat = dict(_flat("", values)).items()
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in flat if k)
