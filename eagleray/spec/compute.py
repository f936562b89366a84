"""The section `compute` of the experiment file: what one trial gets."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, ValidationInfo
from pydantic_core import PydanticCustomError

from eagleray.learn.models.options import Section, Size
from eagleray.spec import terms
from eagleray.spec.terms import Positive, Share


class Workers(terms.Bounds):
    """Bounds of a group that is trained with the workers that there is room for."""

    min: Size = Field(1, description="Workers without which a trial waits.")
    max: Size = Field(description="Workers with enough room.")


class Compute(Section):
    """What one trial gets."""

    workers: Annotated[Workers, terms.NumberOrBounds()] = Field(
        Workers(max=1),
        description="Workers of one trial, which share each batch.",
        json_schema_extra={"default": 1},
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="`ddp`: each worker holds the whole model; `fsdp`: a part of it.",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Numbers in training, by autocast; `fp16` scales the loss."
    )
    gpus: Share = Field(0.0, description="GPUs of each worker: a part of one, or whole ones.")
    cpus: Positive = Field(1.0, description="CPUs of each worker; 0.5 lets two share one.")
    price: Positive | None = Field(
        None,
        description="Money that a trial's resources cost in an hour, for `tune.budget.money`.",
    )

    @property
    def grouped(self) -> bool:
        """Whether a trial is trained by a group of workers."""
        return self.workers.max > 1

    @pydantic.field_validator("strategy")
    @classmethod
    def _spreads(cls, value: str, info: ValidationInfo) -> str:
        workers = info.data.get("workers")
        if value == "fsdp" and workers is not None and workers.max == 1:
            raise PydanticCustomError("law", "fsdp needs workers above 1 beside it")
        return value

    @pydantic.field_validator("precision")
    @classmethod
    def _scales(cls, value: str, info: ValidationInfo) -> str:
        if value == "fp16" and info.data.get("strategy") == "fsdp":
            raise PydanticCustomError("law", "must be fp32 or bf16 beside strategy: fsdp")
        return value
