"""Settings of a deployment: the arguments of `serving.app:build`."""

from __future__ import annotations

from typing import Literal

import pydantic

from eagleray.storage import EMBEDDED


class Settings(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The model to serve, and how to serve it; docs/serving.md says more about each field."""

    name: str = pydantic.Field(min_length=1)  # the model's in the registry
    alias: str = pydantic.Field("champion", min_length=1)  # whose version is served
    storage: str = EMBEDDED  # `s3://bucket[/prefix]` or `file:///folder`
    min_replicas: int = pydantic.Field(1, ge=1)
    max_replicas: int = pydantic.Field(4, ge=1)
    target_ongoing: float = pydantic.Field(16.0, gt=0)  # requests per replica to aim for
    upscale_delay_s: float = pydantic.Field(10.0, ge=0)  # before replicas are added
    downscale_delay_s: float = pydantic.Field(120.0, ge=0)  # before replicas are removed
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
    cpus: float = pydantic.Field(1.0, gt=0)  # that each replica reserves on the Ray cluster
    gpus: float = pydantic.Field(0.0, ge=0)  # must be 0: serving moves no model to a device

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
        if self.capture_hash and not self.capture_key_file:
            raise ValueError("capture_hash needs a capture_key_file: plain hashes can be guessed")
        if self.announce_s and not self.metrics_port:
            raise ValueError("announce_s needs a metrics_port, where probes ask, but got none")
        return self
