"""The fast path: predictions go from the replica's HTTP server straight to the application.

In direct-ingress mode each replica runs its own HTTP server, and HAProxy sends requests to it. Ray
Serve adds about 0.2 ms of bookkeeping to a request, more than the prediction itself takes. Ray
Serve accepts middleware for that server (`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`). This
middleware answers predictions and passes every other request, such as Ray's `/-/healthz`, to Ray
Serve. See docs/adr/0003.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CALLBACK = "serving.fast_path.middlewares"


@dataclass(frozen=True)
class Target:
    """An application, the paths that it answers directly, and its event loop."""

    app: ASGIApp
    takes: Callable[[str], bool]
    loop: asyncio.AbstractEventLoop


_targets: list[Target] = []


def open_to(app: ASGIApp, takes: Callable[[str], bool]) -> None:
    """Route requests to this application; the replica calls it once, on its event loop."""
    _targets[:] = [Target(app, takes, asyncio.get_running_loop())]


def middlewares() -> list[Middleware]:
    """Return the middleware; Ray Serve calls this in each process with an HTTP server."""
    return [Middleware(FastPath)]


class FastPath:
    """Sends predictions to the target application, and the rest to Ray Serve.

    A process without a target (a proxy, a replica of another application) sends everything to Ray
    Serve. So does a process whose HTTP server and application run on different event loops.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._ray_serve = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._ray_serve
        for target in _targets:
            same_loop = target.loop is asyncio.get_running_loop()
            if same_loop and scope["type"] == "http" and target.takes(scope["path"]):
                app = target.app
        await app(scope, receive, send)
