"""Settings of a deployment: the arguments of `serving.app:build`."""

from __future__ import annotations

from typing import Literal

import pydantic

from eagleray.storage import EMBEDDED


class Settings(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The model to serve, and how to serve it.

    Attributes:
        name: the model's name in the registry.
        alias: the alias whose version is served.
        storage: `s3://bucket[/prefix]` or `file:///folder`.
        min_replicas, max_replicas: bounds of autoscaling.
        target_ongoing: requests in progress per replica that autoscaling aims for.
        upscale_delay_s, downscale_delay_s: delays before replicas are added or removed.
        metrics_interval_s, look_back_s: interval between reports, and period of their average.
        max_rows, wait_ms: most rows of a batch, and its longest wait for more under load.
        queue_rows: rows in progress at a replica from which on requests get a 503.
        extra_fields: what to do with fields that are no columns; None: as the experiment file says.
        poll_s: interval between two reads of the alias.
        metrics_port: port on every node for scrapes and `/readyz`; 0 opens none.
        http_port: port of Ray Serve on every node; `/readyz` checks it.
        announce_s: longest wait for a probe of `/readyz` before a loaded replica is RUNNING.
        cpus: logical CPUs that each replica reserves on the Ray cluster.
        gpus: must be 0: serving moves no model to a device.
    """

    name: str = pydantic.Field(min_length=1)
    alias: str = pydantic.Field("champion", min_length=1)
    storage: str = EMBEDDED
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
                "gpus must be 0, since no model is moved to a GPU when it serves, but got"
                f" {self.gpus:g}; leave it out, and take more cpus or replicas"
            )
        if self.announce_s and not self.metrics_port:
            raise ValueError("announce_s needs a metrics_port, where probes ask, but got none")
        return self
