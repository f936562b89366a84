"""The section `serve` of the experiment file: how the endpoint runs."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from eagleray.learn.models.options import Section, Size
from eagleray.spec import terms
from eagleray.spec.terms import NotNegative, Positive

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Preset = Literal["steady", "bursty", "cheap"]


class Replicas(terms.Bounds):
    """Bounds of autoscaling."""

    min: Annotated[int, Field(ge=0)] = Field(
        1, description="Replicas when idle; with 0 the first request waits until one has started."
    )
    max: Size = Field(4, description="Replicas under load.", validate_default=True)


class Slo(Section):
    """What autoscaling is to hold."""

    p95_ms: Positive = Field(description="Time within which 95 % of requests are answered.")


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
