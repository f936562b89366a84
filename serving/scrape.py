"""A port of a node's own for Prometheus, past HAProxy.

HAProxy may pass a scrape of the serving port on to a replica of another node, whose counters are
others: a series would jump between the two. The replicas of a node listen on this port together
(SO_REUSEPORT), and each answers for all of them (`serving/metrics.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serving import metrics


class Server(ThreadingHTTPServer):
    """Answers every GET with what `exposition` gives at the time."""

    allow_reuse_port = True
    daemon_threads = True

    def __init__(self, port: int, exposition: Callable[[], bytes]) -> None:
        super().__init__(("", port), _Scrape)
        self.exposition = exposition

    def start(self) -> None:
        """Answer in a thread of its own."""
        threading.Thread(target=self.serve_forever, name="scrape", daemon=True).start()

    def stop(self) -> None:
        """Answer no more, and give the port back."""
        self.shutdown()
        self.server_close()


class _Scrape(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.server.exposition()
        self.send_response(200)
        self.send_header("Content-Type", metrics.CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Scrapes come all the time; their log would be all there is."""
