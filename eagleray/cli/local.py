"""`eagleray local …`: the storage server on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit
from eagleray.storage import server

app = options.group("The storage server on this machine.")

Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of the server; by default the nearest .eagleray, here or above."),
]


@app.command()
def up(folder: Folder = None, as_json: options.Json = False) -> None:
    """Start the server unless it runs, and wait until it answers.

    Commands that run beside its folder, or in any folder below, find it by themselves.
    """
    _report("up", server.up(folder), as_json)


@app.command()
def down(folder: Folder = None, as_json: options.Json = False) -> None:
    """Stop the server. It keeps its data."""
    stopped = server.down(folder)
    data = f"was {stopped.endpoint}; its data stay in {stopped.folder}" if stopped else "was not up"
    _report("down", stopped, as_json, data)


@app.command()
def status(folder: Folder = None, as_json: options.Json = False) -> None:
    """Tell whether the server runs, and where; end with 1 if it does not."""
    running = server.status(folder)
    if running is None:
        _report("down", None, as_json, server.not_running(folder))
        raise typer.Exit(1)
    _report("up", running, as_json)


def _report(state: str, found: server.Server | None, as_json: bool, details: str = "") -> None:
    if found and not details:
        details = f"{found.endpoint}, process {found.pid}, in {found.folder}"
    line = f"storage server: {state}; {details}"
    emit({"state": state, "server": found}, as_json, table=[[line]])
