"""The section `data.recommend` of the experiment file: rows are choices of users."""

from typing import Annotated

import pydantic
from pydantic import Field, ValidationInfo
from pydantic_core import PydanticCustomError

from eagleray.learn.models.options import Many, Section
from eagleray.learn.tasks.ranking import MOST_PLACES
from eagleray.spec.terms import Filled


class Recommend(Section):
    """Rows are items, of the target column, that users have chosen; items are recommended."""

    user: Filled = Field(description="Column that names the user of a row.")
    k: Annotated[int, Field(ge=1, le=MOST_PLACES)] = Field(
        10, description="Items that are recommended to a user, and that metrics look at."
    )
    rating: Filled | None = Field(
        None, description="Column with the user's rating of the item. It is no input."
    )
    least: float | None = Field(
        None,
        description="Least rating of a row that counts as a choice; others are left out.",
        validate_default=True,
    )

    items: Many[Filled] = Field(
        (), description="Columns that describe the item of a row, not its user: they are no inputs."
    )

    @pydantic.field_validator("rating")
    @classmethod
    def _is_another(cls, rating: str | None, info: ValidationInfo) -> str | None:
        if rating is not None and rating == info.data.get("user"):
            raise PydanticCustomError("law", "must be another column than user")
        return rating

    @pydantic.field_validator("least")
    @classmethod
    def _of_rating(cls, least: float | None, info: ValidationInfo) -> float | None:
        if least is None and info.data.get("rating"):
            raise PydanticCustomError("law", "is required beside rating", {"got": "none"})
        if least is not None and not info.data.get("rating"):
            raise PydanticCustomError("law", "needs rating beside it")
        return least
