"""`eagleray predict`: rows of a file, without a server."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from eagleray import names
from eagleray.cli import options
from eagleray.errors import DataError, UserError

if TYPE_CHECKING:
    import pandas as pd

    from eagleray.state import batches

File = Annotated[
    Path | None, typer.Argument(help="CSV, Parquet or JSON Lines; - is standard input.")
]
Reference = Annotated[str, typer.Option("--version", help="An alias, a number, or latest.")]
REPEATED = "Repeat this column of the file, such as an id; with --input, only such columns."
Repeated = Annotated[
    list[str] | None, typer.Option("--with", "--keep", metavar="COLUMN", help=REPEATED)
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail, and print nothing, if a row is faulty.")
]
INPUT = "In place of FILE: s3://bucket/prefix, a folder or a pattern with *."
Input = Annotated[str | None, typer.Option("--input", help=INPUT)]
Output = Annotated[
    str | None,
    typer.Option("--output", help="Where parts go: s3://bucket/prefix, or a new folder."),
]
Format = Annotated[
    str | None, typer.Option("--format", help="Of the parts: parquet (default) or csv.")
]
PartRows = Annotated[
    int | None, typer.Option(help="Rows of a part; 50,000 by default, or 64 MiB of them.")
]
MaxErrors = Annotated[
    str | None, typer.Option(help="The most rows that may fail: 100, or 5%; 10% by default.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print a line of JSON a row; with --input, the result.")
]


def predict(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    file: File = None,
    reference: Reference = "champion",
    repeated: Repeated = None,
    strict: Strict = False,
    source: Input = None,
    output: Output = None,
    output_format: Format = None,
    rows_per_part: PartRows = None,
    max_errors: MaxErrors = None,
    address: options.Target = None,
    kubernetes: options.Kubernetes = False,
    namespace: options.Namespace = None,
    release: options.Release = None,
    cluster: options.Cluster = None,
    queue: options.Queue = None,
    priority: options.Priority = None,
    suspend: options.Suspend = False,
    deadline: options.Deadline = None,
    retries: options.Retries = None,
    detach: options.Detach = False,
    dry_run: options.DryRun = False,
    storage: options.Storage = options.EMBEDDED,
    as_json: AsJson = False,
) -> None:
    """Predict rows of a file; print a line for each, in its order, as CSV or with --json as JSON.

    For a row that the model cannot take, `error` has its number, from 1, and what is wrong.

    With --input and --output, many files are predicted on Ray and written in parts, with all their
    columns or those of --keep. The same command goes on where it was interrupted, and attaches to
    a run that it has submitted.
    """
    job = _Job(cluster, queue, priority, suspend or None, deadline, retries)
    where = _Where(address, kubernetes, namespace, release, job, detach, dry_run)
    given = {"format": output_format, "rows_per_part": rows_per_part, "max_errors": max_errors}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if source is not None or output is not None:
        if file is not None or strict or not source or not output:
            raise UserError(
                "--input and --output: both are needed, without FILE and --strict (--max-errors 0)"
            )
        chosen["keep"] = tuple(repeated) if repeated else None
        _predict_files((name, reference, storage), (source, output), chosen, where, as_json)
        return
    for option in (*chosen, *where.given()):
        raise UserError(f"--{option.replace('_', '-')}: must stand beside --input and --output")
    if file is None:
        raise UserError("FILE: a file is needed, or --input and --output")
    _predict_rows((name, reference, storage), file, repeated or (), strict, as_json)


class _Job(NamedTuple):
    """What the run on Kubernetes changes of the skeleton: fields of `k8s.rayjob.Options`."""

    cluster: str | None
    queue: str | None
    priority: str | None
    suspend: bool | None
    deadline_s: int | None
    retries: int | None

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value is not None}


class _Where(NamedTuple):
    """Where files are predicted: the options of the command line."""

    address: str | None
    kubernetes: bool
    namespace: str | None
    release: str | None
    job: _Job
    detach: bool
    dry_run: bool

    def given(self) -> list[str]:
        """The options that are given, without their dashes."""
        own = [name for name, value in self._asdict().items() if value and name != "job"]
        return [*own, *(name.removesuffix("_s") for name in self.job.given())]


def _predict_rows(
    model: tuple[str, str, str], file: Path, repeated: Sequence[str], strict: bool, as_json: bool
) -> None:
    """Predict the rows of a file, and print a line for each."""
    from eagleray.api import models

    name, reference, storage = model
    known, frame = models.models(storage)[name], _read(file)
    try:
        answers = known.answers(frame, reference, repeated=repeated)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    summary = f"{len(answers.faults)} of {len(answers.rows)} rows cannot be predicted"
    if answers.faults and strict:
        raise DataError(f"{file}: {summary}; the first is {answers.faults[0]}")
    if as_json:
        for document in answers.documents():
            typer.echo(json.dumps(document, ensure_ascii=False))
    else:
        answers.table().to_csv(sys.stdout, index=False, lineterminator="\n")
    if answers.faults:
        typer.echo(f"{summary}; the column error says why", err=True)


def _predict_files(
    model: tuple[str, str, str],
    places: tuple[str, str],
    chosen: dict[str, Any],
    where: _Where,
    as_json: bool,
) -> None:
    """Predict files on Ray, and print what was written."""
    from rich.console import Console

    from eagleray.api import batch, clusters, models
    from eagleray.state import batches

    name, reference, storage = model
    wanted = batches.Options(**chosen)
    target = clusters.cluster(
        where.address,
        kubernetes=where.kubernetes,
        namespace=where.namespace,
        release=where.release,
        options=where.job.given(),
    )
    if target is None:
        options.check_submitted(detach=where.detach, dry_run=where.dry_run)
    with clusters.storage_reached(target):
        version = models.models(storage)[name].version(reference)
        job = batch.make(version, batch.Places(storage, *places), wanted)
    if target is not None and where.dry_run:
        typer.echo(batch.plan_run(job, wanted.max_errors, target))
        return
    out = Console(stderr=True, highlight=False, markup=False)
    result = (
        batch.run(job, wanted.max_errors, where.address, out=out)
        if target is None
        else batch.submit(job, wanted.max_errors, target, out=out, detach=where.detach)
    )
    if result is not None:
        _show(result, places[1], as_json)


def _show(result: batches.Result, output: str, as_json: bool) -> None:
    """Print what was written."""
    if as_json:
        typer.echo(json.dumps(result.fields(), indent=2))
        return
    typer.echo(
        f"version {result.version} of {result.model}: {result.rows:,} rows in"
        f" {len(result.parts):,} parts in {output}"
    )
    if result.errors:
        said = f"{result.errors:,} of {result.rows:,} rows cannot be predicted"
        typer.echo(f"{said}; the column error says why", err=True)


def _read(file: Path) -> pd.DataFrame:
    """Read a table; standard input is CSV, JSON Lines or Parquet by its first bytes."""
    from eagleray.tabular import load

    if str(file) != "-":
        if not file.is_file():
            beside = [path.name for path in file.parent.glob("*")]
            raise DataError(
                f"{file}: a file is needed, but got none{names.near(file.name, beside)}"
            )
        return load.file(file, file.parent)
    data = sys.stdin.buffer.read()
    suffix = ".jsonl" if data.lstrip()[:1] == b"{" else ".csv"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stdin").with_suffix(".parquet" if data[:4] == b"PAR1" else suffix)
        path.write_bytes(data)
        return load.file(path, Path.cwd(), shown="-")
