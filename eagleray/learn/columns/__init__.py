"""Column kinds: what a column holds, and all that is done differently for it. One file a kind.

What belongs here: how values of one kind are recognised, parsed, written as JSON, encoded, counted
for drift, sent and described. What does not: what is done alike for all columns of a table.

A package adds a kind: it subclasses `NumberKind`, `WordKind` or `ColumnKind`, and calls `register`
in a module that it names as an entry point, see `eagleray.plugins`. That module cannot import
`eagleray.spec`, which is made of the options of all kinds.
"""

from eagleray.learn.columns.boolean import BOOLEAN
from eagleray.learn.columns.categorical import CATEGORICAL
from eagleray.learn.columns.column import (
    Column,
    Columns,
    Raw,
    Tolerance,
    missing_rows,
    read_each,
)
from eagleray.learn.columns.datetime import DATETIME
from eagleray.learn.columns.distinct import Distinct
from eagleray.learn.columns.identifier import IDENTIFIER
from eagleray.learn.columns.image import IMAGE
from eagleray.learn.columns.kind import REGISTRY, ColumnKind, Guess, asked, named, register
from eagleray.learn.columns.number import LARGEST, NumberKind
from eagleray.learn.columns.numeric import NUMERIC
from eagleray.learn.columns.text import TEXT
from eagleray.learn.columns.words import WordKind

__all__ = [
    "CATEGORICAL",
    "IDENTIFIER",
    "LARGEST",
    "NUMERIC",
    "REGISTRY",
    "TEXT",
    "Column",
    "ColumnKind",
    "Columns",
    "Distinct",
    "Guess",
    "NumberKind",
    "Raw",
    "Tolerance",
    "WordKind",
    "asked",
    "missing_rows",
    "named",
    "read_each",
    "register",
]

for _kind in (NUMERIC, BOOLEAN, IMAGE, DATETIME, TEXT, CATEGORICAL, IDENTIFIER):
    register(_kind)
