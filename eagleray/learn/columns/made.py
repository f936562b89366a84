"""Options of a column that a function of the user's makes of other columns."""

from typing import Annotated

import pydantic
from pydantic import Field

from eagleray import code

Own = Annotated[str, Field(pattern=code.PATTERN)]
"""`module:function`."""


class Options(pydantic.BaseModel):
    made_by: Own | None = Field(
        None, description="numeric, categorical: your function that makes the column."
    )
    of: Annotated[tuple[str, ...], pydantic.Strict(False), Field(min_length=1)] | None = Field(
        None, description="numeric, categorical: columns that `made_by` is given."
    )
