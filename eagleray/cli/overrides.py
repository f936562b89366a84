"""`--set key=value`, which `check` and `run` take."""

from __future__ import annotations

from eagleray.errors import UserError


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
