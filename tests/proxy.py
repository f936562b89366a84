"""A server's network, as its clients see it: connections that break, and are refused for a time."""

import contextlib
import math
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Passes bytes between clients at `port` of the loopback and a server at another one."""

    def __init__(self, server: int) -> None:
        self._server, self._listening = server, socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.refused = 0  # connections
        self._refusals = 0.0  # that are still to come
        self._open: set[socket.socket] = set()
        self._passed, self._after, self._then = 0, math.inf, lambda: None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def plan(self, after: int, then: Callable[[], None]) -> None:
        """Once so many bytes more have come from the server, call `then` before these go on."""
        with self._lock:
            self._passed, self._after, self._then, self.refused = 0, after, then, 0

    def leave(self, refusals: float = math.inf) -> None:
        """Break all connections, and refuse so many new ones."""
        self._refusals = refusals
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()
        self.leave()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                if self._refusals > 0:
                    self._refusals, self.refused = self._refusals - 1, self.refused + 1
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._server))
                self._open |= {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:  # either end has gone
            answers = source.getpeername()[1] == self._server
            while piece := source.recv(1 << 16):
                if answers:
                    self._count(len(piece))
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        self._open.discard(source)

    def _count(self, size: int) -> None:
        with self._lock:
            self._passed += size
            due = self._passed > self._after
            if due:
                self._after = math.inf
        if due:
            self._then()
