"""The fast path: predictions go from the replica's HTTP server straight to the application.

Each replica runs its own HTTP server, to which HAProxy sends requests. Ray Serve adds about 0.2 ms
to a request, more than the prediction takes. It accepts middleware for that server
(`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`). This middleware answers predictions and passes every
other request, such as Ray's `/-/healthz`, to Ray Serve. Most predictions are answered before it, by
`serving.connection`. See docs/adr/0003.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from eagleray import ray_compat
from serving import again, writes
from serving.first_replica import Waiting

CALLBACK = "serving.fast_path.middlewares"
CONNECTION = "serving.connection:Connection"
GRPC_HOST = "EAGLERAY_GRPC_HOST"
"""The environment variable that narrows where replicas and proxies listen for gRPC: an address by
which HAProxy reaches them. Without it they listen at all."""


class Application(Protocol):
    """What answers predictions; see `serving.web` and `serving.models`."""

    def predicts(self, path: str) -> bool: ...
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


_targets: list[tuple[Application, asyncio.AbstractEventLoop]] = []  # of this process; at most one


def enable(application: Application) -> None:
    """Send predictions to this application; the replica calls it once, on its event loop."""
    _targets[:] = [(application, asyncio.get_running_loop())]


def target() -> Application | None:
    """The application of this process, if it runs on the current event loop."""
    loop = asyncio.get_running_loop()
    return next((application for application, own in _targets if own is loop), None)


def middlewares() -> list[Middleware]:
    """Return the middlewares, the inner one first.

    Ray Serve calls this in each process with an HTTP server, before it starts one for gRPC there.
    """
    if host := os.environ.get(GRPC_HOST):
        ray_compat.listen_for_grpc_at(host)
    if ray_compat.is_serve_proxy():
        return [Middleware(again.Again), Middleware(Waiting)]
    import uvicorn.config

    # what servers take that name no other; Ray Serve has no option for it
    uvicorn.config.HTTP_PROTOCOLS["auto"] = CONNECTION
    return [Middleware(FastPath)]


class FastPath:
    """Sends predictions to the application of this process, and the rest to Ray Serve.

    A process without one (a replica of another application) sends everything to Ray
    Serve. So does a process whose HTTP server and application run on different event loops.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._ray_serve = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, application = self._ray_serve, target() if scope["type"] == "http" else None
        if application is not None and application.predicts(scope["path"]):
            app = application
            if scope["method"] == "POST":
                writes.join(send)
        await app(scope, receive, send)
