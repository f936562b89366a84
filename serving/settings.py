"""Settings of a deployment: the arguments of `serving.app:build`."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pydantic

from eagleray import names
from eagleray.engines import placement
from eagleray.spec.endpoint import Preset, Schedule
from eagleray.state import rollouts
from eagleray.storage import EMBEDDED
from serving.autoscaling.plan import DAYS, PRESETS, Plan, Window


class Rollout(pydantic.BaseModel, frozen=True, extra="forbid"):
    """How rollouts of the alias proceed, where whoever starts one does not say; docs/rollout.md."""

    mode: rollouts.Mode = "canary"
    steps: tuple[float, ...] = (5.0, 25.0, 50.0)  # percents of the requests
    bake_s: float = pydantic.Field(60.0, ge=0)
    least: int = pydantic.Field(200, ge=1)
    deadline_s: float = pydantic.Field(3600.0, gt=0)
    sticky: str = ""  # a header
    p95_ms: float | None = pydantic.Field(None, gt=0)  # None: the endpoint's objective, if any

    def plan(self, p95_ms: float | None = None) -> rollouts.Plan:
        """The plan; ValidationError for steps that do not rise."""
        return rollouts.Plan(
            mode=self.mode,
            steps=tuple(step / 100 for step in self.steps),
            bake_s=self.bake_s,
            least=self.least,
            deadline_s=self.deadline_s,
            sticky=self.sticky or None,
            p95_ms=self.p95_ms or p95_ms,
        )

    @pydantic.model_validator(mode="after")
    def _possible(self) -> Rollout:
        if self.mode != "canary" and len(self.steps) != 1:
            law = f"steps must be one share where mode is {self.mode}"
            raise ValueError(f"{law}, but got {len(self.steps)}")
        self.plan()
        return self


class Large(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A deployment for versions that do not fit into a replica beside those that it serves."""

    memory_mb: int = pydantic.Field(0, ge=0)  # that each replica reserves; 0 reserves none
    max_replicas: int | None = pydantic.Field(None, ge=1)  # None: as many as the endpoint
    start_s: float = pydantic.Field(600.0, gt=0)  # longest wait for the first replica
    unused_s: float = pydantic.Field(30.0, ge=15)  # without a need, until the last replica ends


class Settings(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The model to serve, and how to serve it; docs/serving.md says more about each field."""

    name: str = pydantic.Field(min_length=1)  # the model's in the registry
    models: tuple[str, ...] = ()  # others that are loaded on demand; `*` for all of the storage
    models_mb: int = pydantic.Field(1024, ge=1)  # memory of these, in MiB of their files
    versions_mb: float = pydantic.Field(0.0, ge=0)  # of the own model's versions in a replica,
    # in MiB of their files; 0 sets no bound but the memory that is free
    large: Large | None = None  # for versions beyond that; None refuses them
    load_s: float = pydantic.Field(30.0, gt=0)  # longest wait of a request for its model
    alias: str = pydantic.Field("champion", min_length=1)  # whose version is served
    storage: str = EMBEDDED  # `s3://bucket[/prefix]` or `file:///folder`
    min_replicas: int = pydantic.Field(1, ge=0)
    max_replicas: int = pydantic.Field(4, ge=1)
    p95_ms: float | None = pydantic.Field(None, gt=0)  # objective: 95 % of requests within it
    target_ongoing: float = pydantic.Field(16.0, gt=0)  # requests per replica, without objective
    preset: Preset = "steady"  # how replicas follow the load
    upscale_delay_s: float | None = pydantic.Field(None, ge=0)  # before replicas are added
    downscale_delay_s: float | None = pydantic.Field(None, ge=0)  # before replicas are removed
    zero_delay_s: float | None = pydantic.Field(None, ge=0)  # before the last one is; None: preset
    schedules: tuple[Schedule, ...] = ()  # windows of the week with a minimum of replicas
    metrics_interval_s: float = pydantic.Field(1.0, gt=0)  # between two reports of a replica
    look_back_s: float = pydantic.Field(10.0, gt=0)  # period of their average
    max_rows: int = pydantic.Field(256, ge=1)  # of a batch
    wait_ms: float = pydantic.Field(1.0, ge=0)  # of a batch, for more rows, under load
    queue_rows: int = pydantic.Field(10_000, ge=1)  # in progress, from which on requests get a 503
    extra_fields: Literal["refuse", "ignore"] | None = None  # None: as the experiment file says
    poll_s: float = pydantic.Field(1.0, gt=0)  # between two reads of the alias
    metrics_port: int = pydantic.Field(0, ge=0, le=65535)  # for scrapes and `/readyz`; 0 opens none
    http_port: int = pydantic.Field(8000, ge=1, le=65535)  # of Ray Serve; `/readyz` checks it
    announce_s: float = pydantic.Field(0.0, ge=0)  # longest wait for a probe before RUNNING
    keys_file: str = ""  # of API keys, see `eagleray keys new`; empty asks for none
    allow_own_code: bool = True  # load versions with code of their own
    signing_key_file: str = ""  # of keys that must have signed versions; empty asks for none
    rate_per_s: float = pydantic.Field(0.0, ge=0)  # of a caller at a replica; 0 sets no limit
    rate_burst: float = pydantic.Field(0.0, ge=0)  # requests at once; 0 takes a second's
    client_header: str = ""  # that names the caller where no key does, set by a proxy of yours
    capture: float = pydantic.Field(0.0, ge=0, le=1)  # share of requests kept in storage
    capture_exclude: tuple[str, ...] = ()  # columns that are not kept
    capture_hash: tuple[str, ...] = ()  # columns of which a keyed hash is kept
    capture_key_file: str = ""  # of the key of these hashes
    logs: Literal["text", "json"] = "text"  # the form of a replica's log
    access_log: bool = False  # a line for each request
    rollout: Rollout | None = None  # None sets nothing for the alias
    cpus: float = pydantic.Field(1.0, gt=0)  # that each replica reserves on the Ray cluster
    gpus: float = pydantic.Field(0.0, ge=0)  # likewise; with any, models are moved to it
    precision: placement.Precision = "fp32"  # of models on a GPU

    def plan(self) -> Plan:
        """Return what autoscaling is to hold; delays win over those of the preset."""
        given = {
            "up_s": self.upscale_delay_s,
            "down_s": self.downscale_delay_s,
            "zero_s": self.zero_delay_s,
        }
        delays = {name: value for name, value in given.items() if value is not None}
        return Plan(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            target_ongoing=self.target_ongoing,
            p95_ms=self.p95_ms,
            pace=dataclasses.replace(PRESETS[self.preset], **delays),
            windows=tuple(_window(one) for one in self.schedules),
        )

    def large_plan(self) -> Plan:
        """Return what autoscaling of `large` is to hold: no replica while no version needs one."""
        assert self.large is not None
        plan, unused_s = self.plan(), self.large.unused_s
        pace = dataclasses.replace(
            plan.pace, zero_s=unused_s, down_s=min(unused_s, plan.pace.down_s)
        )
        most = self.large.max_replicas or self.max_replicas
        return dataclasses.replace(plan, min_replicas=0, max_replicas=most, pace=pace, windows=())

    @pydantic.model_validator(mode="after")
    def _limits(self) -> Settings:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas must be at least min_replicas, which is {self.min_replicas},"
                f" but got {self.max_replicas}"
            )
        if self.precision != "fp32" and not self.gpus:
            raise ValueError(f"precision must be fp32 without gpus, but got {self.precision}")
        if self.capture_hash and not self.capture_key_file:
            raise ValueError("capture_hash needs a capture_key_file: plain hashes can be guessed")
        if self.announce_s and not self.metrics_port:
            raise ValueError("announce_s needs a metrics_port, where probes ask, but got none")
        return self

    @pydantic.field_validator("models")
    @classmethod
    def _names(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for name in models:
            if name != "*" and not names.is_label(name):
                raise ValueError(f"models must be names of models or '*', but got {name!r}")
        return models

    def place(self) -> placement.Placement:
        """Where a replica runs models: as many threads as it has whole CPUs, on its GPU if any."""
        device: placement.Device = "cuda" if self.gpus else "cpu"
        return placement.Placement(max(1, int(self.cpus)), device, self.precision, measured=True)


def _window(schedule: Schedule) -> Window:
    return Window(
        days=tuple(DAYS.index(day) for day in schedule.days),
        start=_minutes(schedule.start),
        end=_minutes(schedule.end),
        zone=schedule.zone,
        min_replicas=schedule.min,
    )


def _minutes(time: str) -> int:
    hours, minutes = time.split(":")
    return 60 * int(hours) + int(minutes)
