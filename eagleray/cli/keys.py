"""`eagleray keys …`: API keys of an endpoint."""

from typing import Annotated

import typer

from eagleray import apikeys
from eagleray.cli import options
from eagleray.cli.output import emit

app = options.group("API keys of an endpoint.")


@app.command()
def new(
    identity: Annotated[str, typer.Option("--id", help="Whose key it is; logs and limits use it.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="predict (default) or admin; may be repeated.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print a new key, once, and its line for the file of `keys_file`."""
    key, record = apikeys.new(identity, scope or ["predict"])
    table = [("key, shown once", key), ("line of the file", record.line())]
    emit({"id": identity, "key": key, "line": record.line()}, as_json, table=table)
