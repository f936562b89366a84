"""`eagleray storage …`: upkeep of a storage."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from eagleray import storage as stores
from eagleray.cli import options
from eagleray.cli.output import emit
from eagleray.errors import UserError
from eagleray.state import sweep as sweeps

app = options.group("Upkeep of a storage.")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.command()
def sweep(
    storage: options.Storage,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Keep contents younger than this: 90m, 24h, 7d.")
    ] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, and remove none.")] = False,
    as_json: options.Json = False,
) -> None:
    """Remove contents (weights, states, files of versions) that no document refers to.

    Uploads that never ended, as a killed process leaves them, are removed too.
    """
    report = sweeps.sweep(stores.open(storage), _age(older_than), dry_run=dry_run)
    removed = "would be removed" if dry_run else "removed"
    parts = {
        "referenced": (f"referenced by {report.documents} documents", report.referenced),
        "young": (f"not referenced, younger than {older_than}", report.young),
        "removed": (f"not referenced, {removed}", report.removed),
    }
    table = [(one.key, "", f"{one.size} bytes") for one in report.removed]
    totals = {}
    for name, (words, entries) in parts.items():
        size = sum(one.size for one in entries)
        totals[name] = {"contents": len(entries), "bytes": size}
        table.append((words, f"{len(entries)} contents", f"{size} bytes"))
    table.append((f"unfinished, {removed}", f"{report.unfinished} uploads", ""))
    totals["unfinished"] = {"uploads": report.unfinished}
    keys = [one.key for one in report.removed]
    emit({"dry_run": dry_run, **totals, "keys": keys}, as_json, table=table)


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found:
        raise UserError(f"--older-than: must be a number and s, m, h or d, but got {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
