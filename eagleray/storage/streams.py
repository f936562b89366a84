"""Streams that copy nothing: several buffers as one file."""

from __future__ import annotations

import bisect
import io
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from eagleray.storage import Storage

PIECE = 256 << 10
"""Bytes that are read and written at once: files get memory in blocks of this size, and larger
ones are rare."""


class _Sized:
    """What seekable streams of known size have in common: the place where one reads on."""

    size: int
    _at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, start + offset)
        return self._at


class Buffers(_Sized, io.BufferedIOBase):
    """A seekable stream of buffers, one after another, which lie where they are."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        views = [memoryview(one).cast("B") for one in buffers]
        self._views = [one for one in views if len(one)]
        self._ends = list(itertools.accumulate(map(len, self._views)))
        self.size = sum(map(len, self._views))

    def read(self, size: int | None = -1, /) -> bytes:
        whole = size is None or size < 0
        return b"".join(self._take(self.size if whole or size is None else size))

    def readinto(self, target: Buffer, /) -> int:
        view, done = memoryview(target).cast("B"), 0
        for part in self._take(len(view)):
            view[done : done + len(part)] = part
            done += len(part)
        return done

    def views(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield views of the bytes from `start` to `stop`."""
        while start < stop:
            index = bisect.bisect_right(self._ends, start)
            view = self._views[index]
            first = start - (self._ends[index] - len(view))
            part = view[first : first + stop - start]
            start += len(part)
            yield part

    def _take(self, size: int) -> Iterator[memoryview]:
        """The next bytes, at most `size`, as parts of the buffers."""
        start, self._at = self._at, max(self._at, min(self._at + size, self.size))
        return self.views(start, self._at)


class Ranges(_Sized, io.RawIOBase):
    """A seekable stream of an object of known size, of which only what is asked for is read."""

    def __init__(self, store: Storage, key: str, size: int) -> None:
        self._store, self._key, self.size = store, key, size

    def readinto(self, target: Buffer, /) -> int:
        view = memoryview(target).cast("B")
        stop = min(self._at + len(view), self.size)
        if stop <= self._at:
            return 0
        part = self._store.get_range(self._key, self._at, stop)
        view[: len(part)] = part
        self._at += len(part)
        return len(part)


def byte_range(source: io.BufferedIOBase, start: int, stop: int) -> Buffers:
    """Return a range of bytes of a seekable stream, as views if it is a `Buffers`, else copied."""
    if isinstance(source, Buffers):
        return Buffers(list(source.views(start, min(stop, source.size))))
    source.seek(start)
    return Buffers([source.read(stop - start)])
