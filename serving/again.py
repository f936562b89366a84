"""A replica that is lost while it answers a request of the Ray Serve proxy: another one is asked.

HAProxy asks the proxy of the head node where it holds no replica for up. The proxy passes the
request on to a replica; if that one is killed, the proxy gives no answer, which its HTTP server
turns into a 500. A prediction changes nothing, so this middleware of the proxy asks once more; of
labels, which another replica would count again, it does not.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_TIMES = 3


class Again:
    """Calls the proxy up to `MOST_TIMES`, until it has begun an answer.

    It keeps the body of each request; `first_replica` bounds how many and how large they are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/").endswith(":label"):
            await self._app(scope, receive, send)
            return
        request = _Request(receive, send)
        for _ in range(MOST_TIMES):
            own = {**scope, "headers": list(scope["headers"])}  # Ray Serve adds to them
            await self._app(own, request.replay(), request.send)
            if request.settled:
                return


class _Request:
    """What has come of a request so far.

    Attributes:
        settled: whether an answer has begun, or the client has left.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self.settled = False
        self._receive, self._send = receive, send
        self._parts: list[Message] = []

    def replay(self) -> Receive:
        """What gives the parts of the body from the first one on."""
        number = 0

        async def receive() -> Message:
            nonlocal number
            number += 1
            if number <= len(self._parts):
                return self._parts[number - 1]
            message = await self._receive()
            self.settled = self.settled or message["type"] == "http.disconnect"
            self._parts.append(message)
            return message

        return receive

    async def send(self, message: Message) -> None:
        self.settled = True
        if message["type"] == "http.response.start":  # replica and proxy both add the id
            headers = dict.fromkeys(map(tuple, message.get("headers", ())))
            message = {**message, "headers": list(headers)}
        await self._send(message)
