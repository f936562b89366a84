"""Form fields: how a person enters the value of a column.

A field says what is entered, not how it looks: pages draw each `Control` (`eagleray/look`).
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from eagleray.learn.columns import pictures

Control = Literal["line", "lines", "choice", "picture"]
Input = Literal["text", "date", "datetime-local"]
Range = tuple[float, float]
"""The smallest and the largest number of the training part."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a form, filled with an example; an empty one sends a missing value."""

    control: Control = "line"
    type: Input = "text"  # of a line, as HTML names it
    keyboard: Literal["text", "decimal"] = "text"  # that a phone shows for a line
    hint: str = ""  # what is entered
    known: tuple[str, ...] = ()  # all values of a choice, suggestions for a line
    value: str = ""  # the example
    # whether a number, `true`, `false` or a list is sent as such; all else is sent as text
    typed: bool = False
    preview: str = ""  # of a picture: what it looks like, as a `data:` URL


def written(value: Any) -> str:
    """The text of a JSON value in a field."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def between(extremes: Range | None) -> str:
    """`18 to 89 in training`; empty where nothing is on record."""
    return "{} to {} in training".format(*map(_shown, extremes)) if extremes else ""


def picture(value: Any, hint: str) -> Field:
    """The field of a picture; one in nested numbers is sent as PNG where that is the same."""
    field = Field(control="picture", hint=hint, typed=True, value=written(value))
    if value is None:
        return field
    planes = pictures.decode(value)
    most, exact = planes.max(), bool(((planes >= 0) & (planes < 256) & (planes % 1 == 0)).all())
    stretched = np.clip(planes * (255 / most if most > 0 else 0), 0, 255)
    sent = _png(planes) if exact and not isinstance(value, str) else field.value
    preview = f"data:image/png;base64,{_png(stretched)}"
    return Field(control="picture", hint=hint, typed=True, value=sent, preview=preview)


def _png(planes: np.ndarray) -> str:
    from PIL import Image

    last = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(last.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _shown(number: float) -> str:
    whole = number == int(number) and abs(number) < 10**15
    return f"{number:,.0f}" if whole else f"{number:.6g}"
