"""Column kinds: what a column holds, and all that depends on it. One file a kind.

A package adds a kind: it subclasses `NumberKind`, `WordKind` or `ColumnKind`, and calls `register`
in a module that it names as an entry point, see `eagleray.plugins`. That module cannot import
`eagleray.spec`, which is made of the options of all kinds.
"""

from eagleray.learn.columns.arrow import Distinct as Distinct
from eagleray.learn.columns.boolean import BOOLEAN
from eagleray.learn.columns.categorical import CATEGORICAL as CATEGORICAL
from eagleray.learn.columns.column import Column as Column
from eagleray.learn.columns.column import Columns as Columns
from eagleray.learn.columns.column import Raw as Raw
from eagleray.learn.columns.column import Tolerance as Tolerance
from eagleray.learn.columns.column import first_of_each as first_of_each
from eagleray.learn.columns.column import hashed as hashed
from eagleray.learn.columns.column import hashed_rows as hashed_rows
from eagleray.learn.columns.column import joined as joined
from eagleray.learn.columns.column import missing_rows as missing_rows
from eagleray.learn.columns.column import read_each as read_each
from eagleray.learn.columns.datetime import DATETIME
from eagleray.learn.columns.fields import Field as Field
from eagleray.learn.columns.identifier import IDENTIFIER as IDENTIFIER
from eagleray.learn.columns.image import IMAGE
from eagleray.learn.columns.kind import REGISTRY as REGISTRY
from eagleray.learn.columns.kind import ColumnKind as ColumnKind
from eagleray.learn.columns.kind import Guess as Guess
from eagleray.learn.columns.kind import Parser as Parser
from eagleray.learn.columns.kind import candidates as candidates
from eagleray.learn.columns.kind import register as register
from eagleray.learn.columns.number import NumberKind as NumberKind
from eagleray.learn.columns.number import finite as finite
from eagleray.learn.columns.numeric import NUMERIC as NUMERIC
from eagleray.learn.columns.text import TEXT as TEXT
from eagleray.learn.columns.words import WordKind as WordKind

for _kind in (NUMERIC, BOOLEAN, IMAGE, DATETIME, TEXT, CATEGORICAL, IDENTIFIER):
    register(_kind)
