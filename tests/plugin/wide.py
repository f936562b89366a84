"""A linear model of numbers, for the experiment file: no torch here."""

from typing import ClassVar, Literal

from pydantic import Field

from eagleray.learn import models


class Wide(models.Options):
    """One weight a number."""

    tag: ClassVar[str | None] = "wide"
    type: Literal["wide"] = Field(description="For numbers.")
    bias: bool = Field(True, description="Whether all outputs have a constant.")


def register() -> None:
    """Add the model."""
    models.REGISTRY.register("wide", models.Model(Wide, "tests.plugin.network:Linear"))
