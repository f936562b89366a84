"""Whether a replica's node may get traffic, and the wait for whoever asks.

KubeRay leads traffic to a new cluster as soon as Serve says RUNNING, and does not look at pods. A
pod found ready only after that is out of its Service for a probe's period. So a replica that is fit
counts as ready before Serve knows it, and becomes RUNNING once a probe has been told so
(docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import threading
import time

log = logging.getLogger("ray.serve")

NO_REPLICAS = b"No replicas are available yet."
"""What HAProxy of Ray Serve answers a health check, with 503, until there is a first replica."""
PROBE_S = 3.0
"""How long HAProxy may take to answer."""
SETTLE_S = 2.0
"""What Kubernetes may take to make an endpoint of a pod that a probe has found ready."""


class Readiness:
    """Answers probes for a replica, together with the HAProxy of its node.

    Args:
        port: of HAProxy on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._fit = False
        self._told = threading.Event()

    def probe(self) -> bool:
        """Whether traffic may come: HAProxy has a replica, here or elsewhere, to pass it on to.

        Or it has none yet because this fit one, the first, waits for the probe.
        """
        fit, (status, text) = self._fit, self._health()
        ready = status == http.client.OK or (fit and text == NO_REPLICAS)
        if ready and fit:
            self._told.set()
        return ready

    async def announce(self, limit_s: float) -> None:
        """Count as fit, and wait until a probe has been told so; at most this long."""
        self._fit = True
        until = time.monotonic() + limit_s
        while not self._told.is_set():
            if time.monotonic() > until:
                log.warning("no probe has found this node ready within %g s", limit_s)
                return
            await asyncio.sleep(0.05)
        await asyncio.sleep(SETTLE_S)

    def _health(self) -> tuple[int, bytes]:
        """Status and text of HAProxy's health check; status 0 where there is no HAProxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PROBE_S)
        try:
            connection.request("GET", "/-/healthz")
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()
