"""The section `serve` of the experiment file: how the endpoint runs."""

import itertools
from typing import Annotated, Literal, get_args

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

from eagleray.learn.models.options import Section, Size
from eagleray.spec import terms
from eagleray.spec.terms import NotNegative, Positive

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Preset = Literal["steady", "bursty", "cheap"]
Percent = Annotated[float, Field(gt=0, le=100)]


class Replicas(terms.Bounds):
    """Bounds of autoscaling."""

    min: Annotated[int, Field(ge=0)] = Field(
        1, description="Replicas when idle; with 0 the first request waits until one has started."
    )
    max: Size = Field(4, description="Replicas under load.", validate_default=True)


class Slo(Section):
    """What autoscaling is to hold."""

    p95_ms: Positive = Field(description="Time within which 95 % of requests are answered.")


class Canary(Section):
    """How the winner of a run takes over from the champion, by evidence (docs/rollout.md)."""

    steps: Annotated[list[Percent], Field(min_length=1)] = Field(
        [5.0, 25.0, 50.0],
        description="Shares of the requests in percent, one after another; then all.",
    )
    bake_s: NotNegative = Field(60.0, description="Least seconds of a step.")
    least: Size = Field(200, description="Least requests of the candidate in a step.")
    deadline_s: Positive = Field(3600.0, description="Seconds after which it is stopped.")
    sticky: terms.Filled | None = Field(
        None, description="Header whose equal values go to the same version."
    )

    @pydantic.field_validator("steps")
    @classmethod
    def _rise(cls, steps: list[float]) -> list[float]:
        if any(low >= high for low, high in itertools.pairwise(steps)):
            raise PydanticCustomError("law", "must rise from one to the next")
        return steps


class Schedule(Section):
    """A window of each week with a minimum of replicas."""

    days: Annotated[list[Day], Field(min_length=1)] = Field(
        [*get_args(Day)], description="Days on which it begins."
    )
    start: Annotated[str, Field(pattern=terms.TIME)] = Field(
        description="Its first minute, such as `08:00`."
    )
    end: Annotated[str, Field(pattern=terms.TIME)] = Field(
        description="The minute after its last; of the next day if not after `start`."
    )
    zone: terms.Zone = Field("UTC", description="Time zone, such as `Europe/Zurich`.")
    min: Size = Field(description="Fewest replicas in it.")


class Batch(Section):
    """Requests answered in one pass of the model."""

    max_rows: Size = Field(256, description="Most rows of one pass.")
    wait_ms: NotNegative = Field(1.0, description="Longest wait for more rows.")


class Serve(Section):
    """How the endpoint runs."""

    replicas: Replicas = Field(Replicas(), description="Bounds of autoscaling.")
    slo: Slo | None = Field(None, description="What autoscaling is to hold.")
    rollout: Annotated[Canary, terms.Named("canary")] | None = Field(
        None,
        description="How the winner of a run that passes the gate takes over; else a person "
        "promotes it.",
    )
    preset: Preset = Field(
        "steady",
        description="How replicas follow the load: `steady` in minutes, `bursty` in seconds and "
        "with replicas to spare, `cheap` late up and early down.",
    )
    schedules: list[Schedule] = Field(
        [], description="Windows of each week with a minimum of replicas."
    )
    batch: Batch = Field(Batch(), description="Requests answered in one pass.")
    extra_fields: Literal["refuse", "ignore"] = Field(
        "refuse",
        description="Fields of a request's row that are no columns; `ignore` lets clients send "
        "whole records. Kept with each version.",
    )
