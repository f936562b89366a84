"""A model served from this process, until it is stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from eagleray import errors, look, spec

if TYPE_CHECKING:
    from serving.settings import Settings


class Endpoint:
    """A running endpoint; it ends with `stop`, or with the `with` block it stands in.

    Attributes:
        url: of the HTTP server, without a path.
        name: the model's.
        version: the number that the alias named when it came up.
        curl: a command that asks for a prediction of a real row.
    """

    def __init__(self, settings: Settings, **where: Any) -> None:
        from serving import local

        self._stack = contextlib.ExitStack()
        self.url, loaded = self._stack.enter_context(local.serving(settings, **where))
        self.name, self.version = loaded.name, loaded.number
        self.curl = local.curl(self.url, loaded)

    def stop(self) -> None:
        """End the endpoint and all that was started for it; called twice, nothing happens."""
        self._stack.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Endpoint of {self.name} version {self.version} at {self.url}>"

    def _repr_html_(self) -> str:
        rows = [("predictions", f"{self.url}/predict"), ("documentation", f"{self.url}/docs")]
        return look.page(
            f"{self.name} version {self.version} answers at {self.url}",
            look.table(("what", "where"), rows),
            look.notes([self.curl]),
        )


def serve(
    model: str,
    storage: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    address: str | None = None,
    **settings: object,
) -> Endpoint:
    """Serve a model by Ray Serve on this machine; give its endpoint once it answers.

    Args:
        model: its name, or the experiment file that made it.
        storage: where it is; as the file says, or that of `eagleray local up`.
        host: to listen on.
        port: to listen on.
        address: of a Ray cluster to run on; else one of this machine's own.
        settings: `alias`, `min_replicas`, `max_replicas` and all else of
            `serving.settings.Settings`; they win over the file.

    Raises:
        NotFoundError: there is no such model or alias.
        ServingError: the version does not reproduce its golden rows, or Ray Serve fails.
        UserError: the port is taken, a setting breaks a law, or this process is connected to Ray
            already.
    """
    given = settings if storage is None else {"storage": storage, **settings}
    return Endpoint(read(model, given, fit=address is None), host=host, port=port, address=address)


def read(model: str, given: Mapping[str, object], *, fit: bool = False) -> Settings:
    """The settings of an experiment file, or the defaults for a name, with `given` put over them.

    Args:
        model: a name or a file.
        given: settings by name.
        fit: size replicas so that this machine holds them all.

    Raises:
        UserError: a setting that breaks a law.
    """
    import pydantic

    from serving import local
    from serving.settings import Settings

    values: dict[str, object] = {"name": model}
    if Path(model).suffix in (".yaml", ".yml"):
        experiment = spec.load(model)
        values = {
            "name": experiment.name,
            "storage": experiment.storage,
            "min_replicas": experiment.serve.replicas.min,
            "max_replicas": experiment.serve.replicas.max,
            "max_rows": experiment.serve.batch.max_rows,
            "wait_ms": experiment.serve.batch.wait_ms,
            "extra_fields": experiment.serve.extra_fields,
        }
    try:
        settings = Settings.model_validate({**values, **given})
    except pydantic.ValidationError as cause:
        problem = cause.errors()[0]
        message = str(problem["msg"]).removeprefix("Value error, ")
        raise errors.UserError(message) from cause
    if fit and "cpus" not in given:
        return settings.model_copy(update={"cpus": local.cpus(settings.max_replicas)})
    return settings
