"""HTTP server for Prometheus scrapes and readiness probes, on a port that bypasses HAProxy.

HAProxy may forward a scrape of the serving port to another node, which has other counters. All
replicas of a node listen on this port (SO_REUSEPORT); each answers for all (`serving/metrics.py`).
"""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serving import metrics

READY = "/readyz"


class Server(ThreadingHTTPServer):
    """Answers `/readyz` with 200 or 503, and every other GET with the exposition."""

    allow_reuse_port = True
    daemon_threads = True

    def __init__(
        self, port: int, exposition: Callable[[], bytes], ready: Callable[[], bool]
    ) -> None:
        super().__init__(("", port), _Request)
        self.exposition, self.ready = exposition, ready

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="scrape", daemon=True).start()


class _Request(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        status, body = 200, b"ready\n"
        if self.path != READY:
            body = self.server.exposition()
        elif not self.server.ready():
            status, body = 503, b"not ready\n"
        self.send_response(status)
        self.send_header("Content-Type", metrics.CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: scrapes and probes would fill the log."""
