"""Pages from templates."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from eagleray import messages

if TYPE_CHECKING:
    import jinja2

PACKAGE = "eagleray.look"
_NOTHING_ELSE = (
    "default-src 'none'; img-src data: blob:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page in HTML, and the Content-Security-Policy under which it works."""

    html: bytes
    policy: str


class Template:
    """A template of a package, which extends `base.html`.

    `scripts` are files of the package: parts of one module, which begins with `parts.js`.
    """

    def __init__(self, package: str, name: str, *, scripts: Sequence[str] = ()) -> None:
        from markupsafe import Markup

        self._made = _environment(package).get_template(name)
        parts = [_read(package, script) for script in scripts]
        script = "".join([_read(PACKAGE, "parts.js"), *parts]) if parts else ""
        style = _read(PACKAGE, "style.css")
        self._fixed = {"style": Markup(style), "script": Markup(script)}  # noqa: S704 - ours
        allowed = f"script-src {_source(script)}; " if script else ""
        self._policy = f"style-src {_source(style)}; {allowed}{_NOTHING_ELSE}"

    def page(self, **values: object) -> Page:
        """Render the page; every value is escaped, and all that the template names are needed."""
        return Page(self._made.render(self._fixed | values).encode(), self._policy)


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    import jinja2

    folders = {"look": jinja2.PackageLoader(PACKAGE, "")}
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, ""), jinja2.PrefixLoader(folders)]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"cell": _cell, "numbers": _numbers}
    return made


def _numbers(rows: Sequence[Sequence[object]]) -> list[bool]:
    """Whether each column of a table has numbers alone, or gaps."""
    return [
        all(isinstance(cell, int | float | None) and not isinstance(cell, bool) for cell in column)
        for column in zip(*rows, strict=True)
    ]


def _cell(value: object) -> str:
    """The text of a table's cell: four significant digits, a dash for None."""
    if value is None:
        return "-"
    return messages.number(value) if isinstance(value, float) else str(value)


@functools.cache
def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text("utf-8")


def _source(text: str) -> str:
    """A source of the policy: what has this hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
