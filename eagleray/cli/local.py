"""`eagleray local …`: the storage server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli.output import emit

if TYPE_CHECKING:
    from eagleray.local import Server

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
    from eagleray import local

    server = local.up(folder)
    _report(server, "up", as_json, f"{server.endpoint}, process {server.pid}, in {server.folder}")


@app.command()
def down(folder: Folder = None, as_json: Json = False) -> None:
    """Stop the server. It keeps its data."""
    from eagleray import local

    server = local.down(folder)
    kept = f"was {server.endpoint}; its data stay in {server.folder}" if server else "was not up"
    _report(server, "down", as_json, kept)


@app.command()
def status(folder: Folder = None, as_json: Json = False) -> None:
    """Tell whether the server runs, and where; end with 1 if it does not."""
    from eagleray import local

    server = local.status(folder)
    if server is None:
        _report(server, "down", as_json, local.looked(folder))
        raise typer.Exit(1)
    _report(server, "up", as_json, f"{server.endpoint}, process {server.pid}, in {server.folder}")


def _report(server: Server | None, state: str, as_json: bool, said: str) -> None:
    facts = {"state": state, "server": server}
    emit(facts, as_json, table=[[f"storage server: {state}; {said}"]])
