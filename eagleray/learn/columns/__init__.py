"""Column kinds: what a column holds, and all that depends on it. One file a kind.

A kind says how its values are inferred, parsed, written as JSON, encoded, counted for drift, sent
and described. What is the same for all columns of a table is no part of it.

A package adds a kind: it subclasses `NumberKind`, `WordKind` or `ColumnKind`, and calls `register`
in a module that it names as an entry point, see `eagleray.plugins`. That module cannot import
`eagleray.spec`, which is made of the options of all kinds.
"""

from eagleray.learn.columns.arrow import Distinct
from eagleray.learn.columns.boolean import BOOLEAN
from eagleray.learn.columns.categorical import CATEGORICAL
from eagleray.learn.columns.column import Column, Columns, Raw, Tolerance, missing_rows, read_each
from eagleray.learn.columns.datetime import DATETIME
from eagleray.learn.columns.identifier import IDENTIFIER
from eagleray.learn.columns.image import IMAGE
from eagleray.learn.columns.kind import REGISTRY, ColumnKind, Guess, candidates, register
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
    "candidates",
    "missing_rows",
    "read_each",
    "register",
]

for _kind in (NUMERIC, BOOLEAN, IMAGE, DATETIME, TEXT, CATEGORICAL, IDENTIFIER):
    register(_kind)
