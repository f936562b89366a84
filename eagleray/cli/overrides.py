"""`--set key=value`, which `check`, `run` and `split` take."""

from __future__ import annotations

from typing import Annotated

import typer

from eagleray.errors import UserError

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set tune.trials=4"),
]


def parse(assignments: list[str] | None) -> dict[str, str]:
    """Dotted key to YAML text; of a key given twice, the last counts.

    Raises:
        UserError: an assignment without `=`, or without a key.
    """
    overrides = {}
    for assignment in assignments or []:
        key, sign, value = assignment.partition("=")
        if not (key and sign):
            raise UserError(f"--set: must be key=value, but got {assignment}")
        overrides[key.strip()] = value
    return overrides
