"""`eagleray models …`: list, compare, promote and fetch versions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Annotated

import typer

from eagleray.api import models
from eagleray.cli.options import EMBEDDED, Json, Storage, group
from eagleray.cli.output import emit
from eagleray.errors import UserError

app = group("List, compare, promote and fetch versions.")

Name = Annotated[str, typer.Argument(help="The model.")]
Reference = Annotated[str, typer.Argument(help="A number, an alias, or latest.")]
Alias = Annotated[str, typer.Option(help="The alias to move.")]
Why = Annotated[str, typer.Option(help="The reason, for the log.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the move, and move nothing.")]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="One model: list its versions.")] = None,
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """List the models, or the versions of one."""
    if name is not None:
        _list_versions(_model(storage, name), as_json)
        return
    known = models.models(storage).table()
    rows = [dict(zip(("name", "latest", "aliases"), model, strict=True)) for model in known]
    table = [(model, latest, models.pairs(aliases)) for model, latest, aliases in known]
    emit(rows, as_json, table=[[*map(str.upper, models.MODEL_COLUMNS)], *table])


@app.command()
def show(
    name: Name, version: Reference = "latest", storage: Storage = EMBEDDED, as_json: Json = False
) -> None:
    """Show all that is on record about a version."""
    found = _model(storage, name).version(version)
    facts = {fact: value for fact, value in models.facts(found).items() if fact != "warnings"}
    emit(found, as_json, table=[("version", found.number), *facts.items()])
    _warn(name, found.number, found.manifest.get("warnings"))


@app.command()
def diff(
    name: Name,
    left: Reference,
    right: Reference,
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """Compare two versions: columns, configuration, metrics, lineage, files."""
    model = _model(storage, name)
    numbers = [model.version(one).number for one in (left, right)]
    found = model.differences(*numbers)
    heading = ("FACT", *(f"VERSION {number}" for number in numbers))
    emit([one._asdict() for one in found], as_json, table=[heading, *found])


@app.command()
def add(
    name: Name,
    example: Annotated[
        Path, typer.Option(help="CSV, Parquet or JSON Lines: rows as clients send them.")
    ],
    onnx: Annotated[Path | None, typer.Option(metavar="FILE", help="A model in ONNX.")] = None,
    lightgbm: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The text of a LightGBM booster.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A program of torch.export, .pt2.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="What is predicted; its column in the example is the truth.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="binary, multiclass or regression.")] = None,
    labels: Annotated[
        str, typer.Option(metavar="A,B,…", help="The classes in the order of the outputs.")
    ] = "",
    output: Annotated[str | None, typer.Option(help="The output, where it has several.")] = None,
    logits: Annotated[bool, typer.Option("--logits", help="The outputs are logits.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and add nothing.")] = False,
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """Add a model that was made elsewhere as the next version; no alias moves."""
    from eagleray import imported

    engine, file = _one_file({"onnx": onnx, "lightgbm": lightgbm, "export": export})
    options = imported.Options(
        target=target or imported.TARGET,
        task=task,
        labels=tuple(label.strip() for label in labels.split(",") if label.strip()),
        output=output,
        logits=logits,
    )
    known = models.models(storage)
    added = known.add(name, file, example, engine=engine, options=options, dry_run=dry_run)
    for note in added.notes:
        typer.echo(note, err=True)
    emit(added, as_json, table=[[added]])
    _warn(name, added.version or 0, added.warnings)


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
        bool, typer.Option("--allow-schema-change", help="Allow a schema that breaks clients.")
    ] = False,
    canary: Annotated[
        bool, typer.Option("--canary", help="In steps, by evidence: as `eagleray rollout start`.")
    ] = False,
    why: Why = "",
    dry_run: DryRun = False,
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """Point an alias, champion by default, to a version."""
    model = _model(storage, name)
    found = model.version(version)
    if canary:
        if expect is not None or dry_run:
            option = "--dry-run" if expect is None else "--expect"
            raise UserError(f"--canary: must stand without {option}")
        begun = model.roll_out(
            found.number, alias, allow_schema_change=allow_schema_change, why=why
        )
        line = f"{name}: version {found.number} gets {begun.share:.0%} of the requests of {alias}"
        emit(begun, as_json, table=[[f"{line}; eagleray rollout status {name} shows how it goes"]])
        return
    move = model.promote(
        found.number,
        alias,
        expect=_expected(expect),
        allow_schema_change=allow_schema_change,
        why=why,
        dry_run=dry_run,
    )
    emit(move, as_json, table=[[move]])
    _warn(name, found.number, found.manifest.get("warnings"))


@app.command()
def rollback(
    name: Name,
    alias: Alias = "champion",
    why: Why = "",
    dry_run: DryRun = False,
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """Point an alias to the version it pointed to before, whatever its columns."""
    move = _model(storage, name).rollback(alias, why=why, dry_run=dry_run)
    emit(move, as_json, table=[[move]])


@app.command()
def events(name: Name, storage: Storage = EMBEDDED, as_json: Json = False) -> None:
    """Show who registered and moved what, when and why."""
    log = _model(storage, name).events()
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
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """Fetch the files of a version, each verified."""
    model = _model(storage, name)
    number = model.version(version).number
    if predictions:
        file = to or Path(f"{name}-{number}-predictions.csv")
        rows = model.pull_predictions(number, file)
        line = f"version {number} of {name}: {rows} rows of the test part in {file}"
        emit({"version": number, "file": str(file), "rows": rows}, as_json, table=[[line]])
        return
    folder = to or Path(f"{name}-{number}")
    files = model.pull(number, folder)
    line = f"version {number} of {name}: {files} files in {folder}"
    emit({"version": number, "folder": str(folder)}, as_json, table=[[line]])


def _one_file(files: Mapping[str, Path | None]) -> tuple[str, Path]:
    """The engine and the file of the only option that is given."""
    given = [(engine, file) for engine, file in files.items() if file is not None]
    if len(given) != 1:
        known, got = " or ".join(f"--{one}" for one in files), len(given)
        raise UserError(f"add: must have the model's file by one of {known}, but got {got} of them")
    return given[0]


def _expected(option: str | None) -> int | EllipsisType | None:
    if option is None:
        return ...
    if option != "none" and not option.isdecimal():
        raise UserError(f"--expect: must be a version's number or none, but got {option!r}")
    return None if option == "none" else int(option)


def _model(storage: str, name: str) -> models.Model:
    return models.models(storage)[name]


def _list_versions(model: models.Model, as_json: bool) -> None:
    rows = model.table(lambda cause: typer.echo(f"skipped: {cause}", err=True))
    table = [[*map(str.upper, models.VERSION_COLUMNS)], *map(models.row, rows)]
    emit(rows, as_json, table=table)
    for row in rows:
        _warn(model.name, row["version"], row["warnings"])


def _warn(model: str, version: int, texts: Sequence[str] | None) -> None:
    """Print warnings to stderr; stdout is for programs."""
    for line in models.warnings(model, version, texts):
        typer.secho(line, fg="red", bold=True, err=True)
