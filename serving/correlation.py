"""What ties a line of the log to a request: its id, and the trace that it belongs to."""

import random
import re
from collections.abc import Mapping

REQUEST_ID = b"x-request-id"
_ID = re.compile(rb"[!-~]{1,128}")  # a line of the log stays one line
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def request_id(headers: Mapping[bytes, bytes]) -> bytes:
    """The id that the client gives; a new one if it gives none, or one that a log cannot hold."""
    given = headers.get(REQUEST_ID)
    if given is not None and _ID.fullmatch(given):
        return given
    return b"%016x" % random.getrandbits(64)  # unlike a UUID it costs a request next to nothing


def fields(headers: Mapping[bytes, bytes], identity: bytes) -> dict[str, str]:
    """Fields of a line of a JSON log: the request, with its trace by W3C's `traceparent`.

    https://www.w3.org/TR/trace-context/: an invalid one is ignored.
    """
    known = {"request_id": identity.decode("ascii")}
    parent = headers.get(b"traceparent", b"")
    found = _TRACE.fullmatch(parent)
    if found is None or parent.startswith(b"ff") or not int(found[1], 16) or not int(found[2], 16):
        return known
    return known | {"trace_id": found[1].decode(), "span_id": found[2].decode()}


def described(known: Mapping[str, str]) -> str:
    """The same in words."""
    name = f"request {known['request_id']}"
    if "trace_id" not in known:
        return name
    return f"{name} of trace {known['trace_id']} (span {known['span_id']})"
