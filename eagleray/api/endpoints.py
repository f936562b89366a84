"""A model served from this process, until it is stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagleray import display, errors, spec
from eagleray.spec import document

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from serving.settings import Settings


class Endpoint(contextlib.AbstractContextManager["Endpoint"]):
    """A running endpoint; `stop`, or the end of its `with` block, ends it.

    Attributes:
        url: of the HTTP server, without a path.
        name: the model's.
        version: the number that the alias named when the endpoint started.
        curl: a command that requests a prediction of a real row; where keys are asked for, with the
            one in the variable EAGLERAY_KEY.
    """

    def __init__(self, settings: Settings, **where: Any) -> None:
        from serving import local

        self._stack = contextlib.ExitStack()
        self.url, loaded = self._stack.enter_context(local.serving(settings, **where))
        self.name, self.version = loaded.name, loaded.number
        self.curl = local.curl(self.url, loaded, keys=bool(settings.keys_file))

    def stop(self) -> None:
        """End the endpoint and all that was started for it; a second call does nothing."""
        self._stack.close()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Endpoint of {self.name} version {self.version} at {self.url}>"

    def _repr_html_(self) -> str:
        rows = [("predictions", f"{self.url}/predict"), ("documentation", f"{self.url}/docs")]
        return display.page(
            f"{self.name} version {self.version} answers at {self.url}",
            display.table(("what", "where"), rows),
            display.notes([self.curl]),
        )


def serve(
    model: str,
    storage: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    grpc_port: int = 0,
    address: str | None = None,
    **settings: object,
) -> Endpoint:
    """Serve a model by Ray Serve on this machine; return its endpoint once it answers.

    Args:
        model: its name, or the experiment file that made it.
        storage: URI; by default that of the file, or of `eagleray local up`.
        host: to listen on.
        port: to listen on.
        grpc_port: to answer the Open Inference Protocol over gRPC at; 0 opens none.
        address: a Ray cluster to run on; by default Ray starts on this machine.
        settings: fields of `serving.settings.Settings`, such as `alias` or `max_replicas`; they
            win over the file.

    Raises:
        NotFoundError: there is no such model or alias.
        ServingError: the version does not reproduce its golden rows, or Ray Serve fails.
        UserError: the port is taken, a setting is invalid, or this process is connected to Ray
            already.
    """
    options = read(model, {"storage": storage, **settings}, fit=address is None)
    return Endpoint(options, host=host, port=port, grpc_port=grpc_port, address=address)


def read(model: str, options: Mapping[str, object], *, fit: bool = False) -> Settings:
    """Settings of an experiment file, or the defaults for a name; UserError if one is invalid.

    `options` win unless None. With `fit`, replicas are sized so that this machine holds them all.
    """
    import pydantic

    from serving import local
    from serving.settings import Settings

    values: dict[str, object] = {"name": model}
    options = {name: value for name, value in options.items() if value is not None}
    if Path(model).suffix in (".yaml", ".yml"):
        experiment = spec.load(model)
        serve = experiment.serve
        values = {
            "name": experiment.name,
            "storage": experiment.storage,
            "min_replicas": serve.replicas.min,
            "max_replicas": serve.replicas.max,
            "p95_ms": serve.slo and serve.slo.p95_ms,
            "preset": serve.preset,
            "schedules": [one.model_dump() for one in serve.schedules],
            **serve.batch.model_dump(include={"max_rows", "wait_ms"}),
            "extra_fields": serve.extra_fields,
        }
    try:
        settings = Settings.model_validate({**values, **options})
    except pydantic.ValidationError as cause:
        raise errors.UserError(_message(cause.errors()[0])) from cause
    if fit and "cpus" not in options:
        return settings.model_copy(update={"cpus": local.cpus(settings.max_replicas)})
    return settings


def _message(details: ErrorDetails) -> str:
    """Return a law and the value that breaks it, of what pydantic says."""
    law = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not details["loc"]:
        return law
    place = document.dotted(tuple(details["loc"]))
    if details["type"] == "value_error":  # a law of ours, with the value
        return law if law.startswith(place) else f"{place}: {law}"
    return f"{place} {law.replace('should', 'must', 1)}, but got {details['input']!r}"
