"""The fast lane: predictions go from the replica's HTTP server straight to the application.

In direct-ingress mode each replica runs its own HTTP server, and HAProxy sends it traffic. Between
that server and the application, Ray Serve puts about 0.2 ms of bookkeeping a request, which is
more than the prediction costs. Ray Serve lets operators wrap middleware around that server
(`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.lane.middlewares`); this one answers predictions
itself and leaves all else, Ray's own `/-/healthz` first, on Ray's way. See docs/adr/0003.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CALLBACK = "serving.lane.middlewares"


@dataclass(frozen=True)
class Lane:
    """An application, which paths it takes directly, and the loop it lives on."""

    app: ASGIApp
    takes: Callable[[str], bool]
    loop: asyncio.AbstractEventLoop


_lanes: list[Lane] = []


def open_to(app: ASGIApp, takes: Callable[[str], bool]) -> None:
    """Lead requests to this application; called once, by the replica, on its event loop."""
    _lanes[:] = [Lane(app, takes, asyncio.get_running_loop())]


def middlewares() -> list[Middleware]:
    """What Ray Serve calls in each process that has an HTTP server."""
    return [Middleware(FastLane)]


class FastLane:
    """Takes the requests that the process's lane is open to.

    Without a lane, as in a proxy or in another application's replica, or where Ray Serve runs
    applications on another event loop than its server, everything stays on Ray's way.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._slow = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._slow
        for lane in _lanes:
            here = lane.loop is asyncio.get_running_loop()
            if here and scope["type"] == "http" and lane.takes(scope["path"]):
                app = lane.app
        await app(scope, receive, send)
