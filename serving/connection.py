"""An HTTP connection of a replica: uvicorn's, with a shorter way for predictions that come whole.

For every request uvicorn makes an event, checks each header of the answer, and writes twice. A POST
of a prediction whose body has come with its head needs none of it. Every other request is uvicorn's
alone. See docs/adr/0003.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving import fast_path


class Connection(HttpToolsProtocol):
    """Hands whole predictions to the application, past the middleware of Ray Serve."""

    _whole: fast_path.Application | None = None  # answers the request that is being read
    _content = b""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._whole is not None:  # a part is still to come
            content, self._whole, self._content = self._content, None, b""
            if not self.transport.is_closing():
                super().on_headers_complete()
                super().on_body(content)

    def on_headers_complete(self) -> None:
        path = self.root_path + self.url.decode("latin-1")
        self._whole = self._application(path)
        if self._whole is None:
            super().on_headers_complete()
            return
        scope: Any = self.scope
        scope.update(method="POST", path=path, raw_path=path.encode(), query_string=b"")

    def on_body(self, body: bytes) -> None:
        if self._whole is None:
            super().on_body(body)
        else:
            self._content += body

    def on_message_complete(self) -> None:
        if self._whole is None:
            super().on_message_complete()
            return
        application: Any = self._whole
        content, self._whole, self._content = self._content, None, b""
        self.cycle = Whole(self, content)
        self._start_asgi_task(self.cycle, application)

    def _application(self, path: str) -> fast_path.Application | None:
        """What answers the request if it is a plain prediction, and no other one is in progress."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.expect_100_continue or self.limit_concurrency is not None:
            return None
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return None
        application = fast_path.target()
        if application is None or parser.should_upgrade() or not application.predicts(path):
            return None
        return application


class Whole(RequestResponseCycle):
    """A request that is read already, and its response in one write if that is whole too."""

    def __init__(self, connection: Connection, content: bytes) -> None:
        self.scope, self.flow = connection.scope, connection.flow
        self.transport = connection.transport
        self.logger, self.access_logger = connection.logger, connection.access_logger
        self.access_log, self.on_response = connection.access_log, connection.on_response_complete
        self.default_headers = connection.server_state.default_headers
        self.keep_alive = connection.parser.should_keep_alive()
        self.disconnected = self.response_started = self.response_complete = False
        self.waiting_for_100_continue, self.expected_content_length = False, 0
        self.chunked_encoding: bool | None = None
        self._content: bytes | None = content
        self._ended: asyncio.Event | None = None
        self._head: Any = None

    @property
    def message_event(self) -> asyncio.Event:  # type: ignore[override]
        """Set once the client has left, or has its answer."""
        if self._ended is None:
            self._ended = asyncio.Event()
        return self._ended

    async def receive(self) -> Any:
        content, self._content = self._content, None
        if content is not None:
            return {"type": "http.request", "body": content, "more_body": False}
        if not self.disconnected and not self.response_complete:
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start" and not self.response_started:
            self._head = message  # goes with the body
            return
        head, self._head = self._head, None
        if head is not None and not self._write(head, message):
            await super().send(head)
        if not self.response_complete:
            await super().send(message)

    def _write(self, head: Any, message: Any) -> bool:
        """Write a whole response of which uvicorn has nothing to do; tell whether it is one."""
        names = [name for name, _ in head["headers"]]
        plain = b"content-length" in names and b"connection" not in names
        if not plain or not self.keep_alive or self.disconnected or message.get("more_body"):
            return False
        lines = [STATUS_LINE[head["status"]]]
        for name, value in (*self.default_headers, *head["headers"]):
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n", message["body"])
        self.transport.write(b"".join(lines))
        self.response_started = self.response_complete = True
        if self._ended is not None:
            self._ended.set()
        self.on_response()
        return True
