"""What a deployment is told: the arguments of `serving.app:build`, checked."""

from __future__ import annotations

from typing import Literal

import pydantic


class Settings(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Which model to serve, and how.

    Attributes:
        name: the model's name in the registry.
        alias: which of its aliases to follow.
        storage: `s3://bucket[/prefix]` or `file:///folder`.
        min_replicas: fewest replicas.
        max_replicas: most replicas.
        target_ongoing: requests in progress at each replica that autoscaling aims for.
        upscale_delay_s: how long more replicas must be wanted before they are started.
        downscale_delay_s: how long fewer must be wanted before one is drained.
        metrics_interval_s: how often replicas report their requests in progress.
        look_back_s: over which time these are averaged.
        max_rows: most rows in a batch.
        wait_ms: longest wait for company in a batch, under load only.
        queue_rows: while so many rows are in progress at a replica, more are refused with 503.
        extra_fields: whether fields that are no columns are refused or ignored; absent: as the
            model's experiment file says.
        poll_s: how often the alias is looked at.
        metrics_port: port on every node for scrapes and `/readyz`; 0 opens none.
        http_port: where Ray Serve listens on every node; `/readyz` asks there.
        announce_s: longest time that a replica that is fit waits to be asked for `/readyz` before
            Ray Serve calls it running; 0 does not wait.
        cpus: logical CPUs that each replica reserves on the Ray cluster.
        gpus: must be 0: nothing that serves moves a model or a tensor to a device.
    """

    name: str = pydantic.Field(min_length=1)
    alias: str = pydantic.Field("champion", min_length=1)
    storage: str = "s3://eagleray"
    min_replicas: int = pydantic.Field(1, ge=1)
    max_replicas: int = pydantic.Field(4, ge=1)
    target_ongoing: float = pydantic.Field(16.0, gt=0)
    upscale_delay_s: float = pydantic.Field(10.0, ge=0)
    downscale_delay_s: float = pydantic.Field(120.0, ge=0)
    metrics_interval_s: float = pydantic.Field(1.0, gt=0)
    look_back_s: float = pydantic.Field(10.0, gt=0)
    max_rows: int = pydantic.Field(256, ge=1)
    wait_ms: float = pydantic.Field(1.0, ge=0)
    queue_rows: int = pydantic.Field(10_000, ge=1)
    extra_fields: Literal["refuse", "ignore"] | None = None
    poll_s: float = pydantic.Field(1.0, gt=0)
    metrics_port: int = pydantic.Field(0, ge=0, le=65535)
    http_port: int = pydantic.Field(8000, ge=1, le=65535)
    announce_s: float = pydantic.Field(0.0, ge=0)
    cpus: float = pydantic.Field(1.0, gt=0)
    gpus: float = pydantic.Field(0.0, ge=0)

    @pydantic.model_validator(mode="after")
    def _limits(self) -> Settings:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas must be at least min_replicas, which is {self.min_replicas},"
                f" but got {self.max_replicas}"
            )
        if self.gpus:
            raise ValueError(
                "gpus must be 0, since no model is moved to a GPU when it serves and a reserved"
                f" one would stand idle, but got {self.gpus:g}; leave it out, and take more cpus"
                " or replicas"
            )
        if self.announce_s and not self.metrics_port:
            raise ValueError("announce_s needs a metrics_port, where probes ask, but got none")
        return self
