"""Bodies in gzip, of any wire."""

from serving import encoding
from serving.protocol import Body, Codec, Rows
from serving.wire.wire import Exchange


class Compressed:
    """An exchange whose body is gzip; it is decompressed in a thread."""

    def __init__(self, plain: Exchange) -> None:
        self._plain = plain
        self.explain, self.alone, self.encode = plain.explain, plain.alone, plain.encode

    def quick_rows(self, codec: Codec, body: Body) -> Rows | None:
        return None

    def rows(self, codec: Codec, body: Body) -> Rows:
        return self._plain.rows(codec, encoding.decompress(body))
