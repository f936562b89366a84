"""Bodies compressed by gzip: unpacked within bounds, and made for who asks for them."""

from __future__ import annotations

import gzip
import zlib

from eagleray import errors
from serving import protocol

PAYS = 16 * 1024
"""Bytes from which on an answer is compressed for clients that accept it."""

_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 1  # 10,000 answers become 22 % of their size; 20 % at level 6, in six times the time


def unpack(body: protocol.Body) -> bytes:
    """The body that was compressed.

    Raises:
        RequestError: 413 once it shows that it has more than `protocol.MOST_BYTES`, 400 for what
            is no gzip, or not all of it.
    """
    unpacked = bytearray()
    rest: protocol.Body = body
    try:
        while rest:  # there may be several members one after another
            member = zlib.decompressobj(_GZIP)
            unpacked += member.decompress(rest, protocol.MOST_BYTES + 1 - len(unpacked))
            if len(unpacked) > protocol.MOST_BYTES:
                raise protocol.too_many_bytes()
            if not member.eof:
                raise zlib.error("it ends too early")
            rest = member.unused_data
    except zlib.error as cause:
        message = f"the body must be gzip, as content-encoding says, but {cause}"
        raise errors.RequestError(message, status=400) from cause
    return bytes(unpacked)


def pack(body: bytes) -> bytes:
    """The body, compressed."""
    return gzip.compress(body, _LEVEL, mtime=0)


def accepted(header: bytes) -> bool:
    """Whether an `accept-encoding` header names gzip, and not with a weight of 0."""
    for part in header.lower().split(b","):
        name, _, weight = part.partition(b";")
        if name.strip() in (b"gzip", b"x-gzip"):
            return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False
