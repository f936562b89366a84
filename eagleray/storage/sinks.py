"""Where a content is written whose pieces come in any order, from several threads."""

import io
import os
from collections.abc import Iterator
from typing import Protocol

from eagleray.storage import Sink, streams


class Content(Sink, Protocol):
    """A sink that gives back what it took."""

    def views(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from `start` to `stop`, each piece valid until the next."""


class File:
    """A file that is open for reading and writing, by its handle."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def write(self, piece: memoryview, start: int, /) -> None:
        while piece:
            done = os.pwrite(self._handle, piece, start)
            piece, start = piece[done:], start + done

    def views(self, start: int, stop: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(stop - start, streams.PIECE)))
        while got := os.preadv(self._handle, [buffer[: stop - start]], start):
            yield buffer[:got]
            start += got


class Memory:
    """A content of this many bytes in memory."""

    def __init__(self, size: int) -> None:
        self._content = io.BytesIO(bytes(size))
        self._view = self._content.getbuffer()

    def write(self, piece: memoryview, start: int, /) -> None:
        self._view[start : start + len(piece)] = piece

    def views(self, start: int, stop: int) -> Iterator[memoryview]:
        yield self._view[start:stop]

    def getvalue(self) -> bytes:
        """Return what it holds, without a copy; it takes nothing more."""
        self._view.release()
        return self._content.getvalue()
