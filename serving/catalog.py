"""The list of models that an endpoint answers for."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from eagleray import errors
from serving.predictor import Predictor
from serving.responses import Response, as_json, as_list

log = logging.getLogger("ray.serve")


class Listed(NamedTuple):
    """A model; `version` is the one that serves, None while none is loaded."""

    name: str
    version: int | None


class Catalog:
    """The own model of an application, and `others` if it has any."""

    def __init__(self, name: str, predictor: Callable[[], Predictor | None]) -> None:
        self._name, self._predictor = name, predictor
        self.others: Callable[[], Awaitable[list[Listed]]] | None = None

    async def models(self) -> Response:
        """KServe's V1 list: names."""
        return as_json(200, models=[one.name for one in await self._listed()])

    async def index(self) -> Response:
        """Triton's index of a repository, with what each model's state is."""
        return as_list(200, [_indexed(one) for one in await self._listed()])

    async def _listed(self) -> list[Listed]:
        loaded = self._predictor()
        own = Listed(self._name, loaded.number if loaded else None)
        try:
            return [own, *(await self.others() if self.others else [])]
        except errors.StorageError as cause:
            log.warning("models cannot be listed: %s", cause)
            law = "models cannot be listed: storage cannot be read; the server's log says why"
            raise errors.RequestError(law, status=503) from cause


def _indexed(one: Listed) -> dict[str, str]:
    if one.version is None:
        return {"name": one.name, "state": "UNAVAILABLE", "reason": "unloaded"}
    return {"name": one.name, "version": str(one.version), "state": "READY", "reason": ""}
