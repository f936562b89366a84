"""How values look in a notebook: a sentence first, then tables.

Colours are the notebook's own, light or dark. Text is escaped: it comes from files of data.
"""

import html
from collections.abc import Iterable, Sequence

_SCROLLS = "overflow-x:auto;max-width:100%"
_NUMBER = "text-align:right;font-variant-numeric:tabular-nums"
_TEXT = "text-align:left"


def page(sentence: str, *parts: str) -> str:
    """A sentence, and the tables and notes below it."""
    return f'<div style="{_SCROLLS}"><p>{html.escape(sentence)}</p>{"".join(parts)}</div>'


def table(headings: Iterable[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """An HTML table; numbers are right-aligned, with four significant digits."""
    head = "".join(f'<th scope="col" style="{_TEXT}">{html.escape(one)}</th>' for one in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    titled = f"<caption style='{_TEXT}'>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{titled}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def picture(svg: str) -> str:
    """A picture of `eagleray.look.pictures`, in the notebook's own text colour."""
    style = (
        ".plot text{fill:currentColor;font-size:11px}.plot .grid{stroke:currentColor;opacity:.15}"
        ".plot .line{fill:none;stroke-width:2;stroke:#0072b2}.plot .mark{fill:#0072b2}"
        ".plot .grey{stroke:#8a8a8a;fill:#8a8a8a}"
    )
    return f'<div style="max-width:32rem"><style>{style}</style>{svg}</div>'


def notes(lines: Iterable[str]) -> str:
    """An HTML list, such as of warnings; empty text without lines."""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def text(value: object) -> str:
    """The text of a cell: four significant digits, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'<td style="{_NUMBER if number else _TEXT}">{html.escape(text(value))}</td>'
