"""Options of columns and models that have an effect beside some values of another one alone."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Need(NamedTuple):
    """The other option, the law in words, and whether a value of it gives the option an effect."""

    option: str
    law: str
    fits: Callable[[Any], bool]
