"""Readiness of a replica's pod.

KubeRay switches traffic to a new cluster as soon as Serve reports RUNNING; it ignores the pods'
readiness. A pod that turns ready later is missing from its Service for up to one probe period. So a
loaded replica becomes RUNNING only after a probe has found it ready (docs/adr/0014).
"""

import asyncio
import http.client
import logging
import threading
import time

log = logging.getLogger("ray.serve")

NO_REPLICAS = b"No replicas are available yet."
"""HAProxy's answer to a health check, with status 503, before the first replica runs."""
PROBE_S = 3.0  # timeout of a health check of HAProxy
SETTLE_S = 2.0  # from a successful probe until Kubernetes has an endpoint of the pod


class Readiness:
    """Answers readiness probes for a replica and the HAProxy at `port` of its node."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loaded = False
        self._probed = threading.Event()

    def probe(self) -> bool:
        """Tell whether the pod may get traffic.

        It may when HAProxy knows a replica on any node. It also may when HAProxy knows none yet and
        this replica has loaded its version: it is the first one, and waits for this probe.
        """
        loaded, (status, text) = self._loaded, self._health()
        ready = status == http.client.OK or (loaded and text == NO_REPLICAS)
        if ready and loaded:
            self._probed.set()
        return ready

    async def announce(self, limit_s: float) -> None:
        """Report ready, and wait for the next successful probe, at most `limit_s` seconds."""
        self._loaded = True
        until = time.monotonic() + limit_s
        while not self._probed.is_set():
            if time.monotonic() > until:
                log.warning("no probe has found this node ready within %g s", limit_s)
                return
            await asyncio.sleep(0.05)
        await asyncio.sleep(SETTLE_S)

    def _health(self) -> tuple[int, bytes]:
        """Ask HAProxy for its health: status and body; status 0 if it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PROBE_S)
        try:
            connection.request("GET", "/-/healthz")
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()
