"""`eagleray local …`: the storage server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli.output import emit

if TYPE_CHECKING:
    from eagleray.storage.server import Server

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The storage server on this machine.",
)

Folder = Annotated[
    Path | None,
    typer.Option(
        help="Where it keeps everything; the nearest .eagleray by default, here or above."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def up(folder: Folder = None, as_json: Json = False) -> None:
    """Start the server unless it runs, and wait until it answers.

    Commands that run beside its folder, or in any folder below, find it by themselves.
    """
    from eagleray.storage import server

    running = server.up(folder)
    _report(
        running, "up", as_json, f"{running.endpoint}, process {running.pid}, in {running.folder}"
    )


@app.command()
def down(folder: Folder = None, as_json: Json = False) -> None:
    """Stop the server. It keeps its data."""
    from eagleray.storage import server

    running = server.down(folder)
    kept = f"was {running.endpoint}; its data stay in {running.folder}" if running else "was not up"
    _report(running, "down", as_json, kept)


@app.command()
def status(folder: Folder = None, as_json: Json = False) -> None:
    """Tell whether the server runs, and where; end with 1 if it does not."""
    from eagleray.storage import server

    running = server.status(folder)
    if running is None:
        _report(running, "down", as_json, server.looked(folder))
        raise typer.Exit(1)
    _report(
        running, "up", as_json, f"{running.endpoint}, process {running.pid}, in {running.folder}"
    )


def _report(server: Server | None, state: str, as_json: bool, said: str) -> None:
    facts = {"state": state, "server": server}
    emit(facts, as_json, table=[[f"storage server: {state}; {said}"]])
