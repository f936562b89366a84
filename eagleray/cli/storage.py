"""`eagleray storage …`: upkeep of a storage."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import typer

from eagleray.cli.output import emit

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Upkeep of a storage."
)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.callback()
def _group() -> None:
    """Upkeep of a storage."""


@app.command()
def sweep(
    storage: Annotated[
        str, typer.Option(help="s3://bucket[/prefix] or file:///path.", envvar="EAGLERAY_STORAGE")
    ],
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Leave younger ones alone: 90m, 24h, 7d.")
    ] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, and remove none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Remove contents (weights, states, files of versions) that no document refers to."""
    from eagleray import storage as stores
    from eagleray.state import sweep as sweeps

    done = sweeps.sweep(stores.open(storage), _age(older_than), dry_run=dry_run)
    removed = "would be removed" if dry_run else "removed"
    words = {
        "referenced": f"referenced by {done.documents} documents",
        "young": f"not referenced, younger than {older_than}",
        "removed": f"not referenced, {removed}",
    }
    found = {name: getattr(done, name) for name in words}
    totals = {
        name: {"contents": len(entries), "bytes": sum(one.size for one in entries)}
        for name, entries in found.items()
    }
    table = [(one.key, "", f"{one.size} bytes") for one in done.removed]
    for name, total in totals.items():
        table.append((words[name], f"{total['contents']} contents", f"{total['bytes']} bytes"))
    emit(
        {"dry_run": dry_run, **totals, "keys": [one.key for one in done.removed]},
        as_json,
        table=table,
    )


def _age(text: str) -> timedelta:
    from eagleray.errors import UserError

    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found:
        raise UserError(f"--older-than: must be a number and s, m, h or d, but got {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
