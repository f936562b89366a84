"""Head and body of an answer in one write.

uvicorn writes the head of a response and then its body, and HAProxy passes the head on at once.
Were the replica killed between the two, the client would get half an answer, and HAProxy could not
ask another replica any more.
"""

from typing import Any

from starlette.types import Send


def join(send: Send) -> None:
    """Let uvicorn write the head of this response with the first part of its body.

    `send` is what uvicorn calls the application with; with any other nothing changes. Not for HEAD,
    whose responses have no body.
    """
    cycle: Any = getattr(send, "__self__", None)  # of one request: `RequestResponseCycle`
    if hasattr(cycle, "transport"):
        cycle.transport = _Joined(cycle)


class _Joined:
    """The transport of one response until the first part of its body is written."""

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: Any) -> None:
        self._cycle, self._transport, self._head = cycle, cycle.transport, b""

    def write(self, data: bytes) -> None:
        if not self._cycle.response_started:  # 100 Continue
            self._transport.write(data)
        elif not self._head:
            self._head = data
        else:
            self._cycle.transport = self._transport
            self._transport.write(self._head + data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
