"""Names of models and aliases, and suggestions for misspelt ones."""

import difflib
import re
from collections.abc import Iterable

from eagleray import errors

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123: fit for DNS, keys and URLs


def is_label(name: str) -> bool:
    """Whether a name is a DNS label."""
    return _LABEL.fullmatch(name) is not None


def check(what: str, name: str) -> None:
    """Refuse a name that is no DNS label, with a UserError."""
    if not is_label(name):
        raise errors.UserError(
            f"{what}: must be 1 to 63 of a-z, 0-9 and '-', not starting or ending with '-', "
            f"but got {name!r}"
        )


def near(name: str, known: Iterable[str]) -> str:
    """The end of a message, `; did you mean …`; empty where no known name is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}" if close else ""
