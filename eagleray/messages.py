"""Parts of messages: lists, long values, shares, and settings of the experiment file."""

import math
from collections.abc import Sequence
from typing import Any

import yaml


def listed(items: Sequence[str], most: int = 3) -> str:
    """The first items, and the number of the others."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def shortened(text: str, most: int = 60) -> str:
    """The text, cut to `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def percent(share: float) -> str:
    """A share in per cent, with two digits of what is small: of it, or of what it lacks of all."""
    if 0 < (rest := 100 * (1 - share)) < 1:
        return f"{100 * share:.{1 - math.floor(math.log10(rest))}f} %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def number(value: float, form: str = ".4g") -> str:
    """A number with so many digits, such as `.3g`, without an exponent where it is of usual size.

    From 1,000 on `.4f` has six digits in all.
    """
    size = abs(value)
    if form.endswith("f") and size >= 1000:
        form = f"{'+' * form.startswith('+')}.6g"
    if not form.endswith("g") or not 1e-4 <= size < 1e15:
        return f"{value:{form}}"
    sign, digits = "+" * form.startswith("+"), int(form.strip("+.g"))
    places = digits - 1 - math.floor(math.log10(size))
    text = f"{round(value, places):{sign},.{max(0, places)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def setting(tree: dict[str, Any]) -> str:
    """A setting as one line of YAML in backquotes."""
    flow = yaml.safe_dump(tree, default_flow_style=True, width=10**6, allow_unicode=True)
    return f"`{flow.strip()[1:-1]}`"


def span(seconds: float) -> str:
    """`40 s`, `5 min`, `3 h`."""
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
