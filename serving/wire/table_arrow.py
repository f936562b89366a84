"""Arrow's IPC stream format: https://arrow.apache.org/docs/format/Columnar.html.

What a small body could expand to much memory is refused before it is read: compressed batches,
types whose values share memory, dictionaries that repeat long texts.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

from eagleray import errors
from serving import protocol
from serving.wire.table import Table

if TYPE_CHECKING:
    import pyarrow as pa

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # of MessageHeader in Message.fbs
_LENGTH, _COMPRESSION = 0, 3  # fields of RecordBatch in Message.fbs
_DATA = 1  # field of DictionaryBatch


def _read(body: protocol.Body) -> pa.Table:
    import pyarrow as pa

    _check_messages(body)
    with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
        _check_types(reader.schema)
        table = pa.Table.from_batches(list(reader), reader.schema)
    table.validate(full=True)
    protocol.check_rows(table.num_rows)
    return _decoded(table)


def _check_messages(body: protocol.Body) -> None:
    """Refuse compressed batches and too many rows, by the batches' metadata."""
    import pyarrow as pa

    rows, position = 0, pa.BufferReader(body)
    reader = pa.ipc.MessageReader.open_stream(position)
    for message in _messages(reader):
        header = _Flat.root(message.metadata.to_pybytes())
        kind, batch = header.byte(1), header.table(2)
        if kind == _DICTIONARY_BATCH and batch is not None:
            batch = batch.table(_DATA)
        elif kind != _RECORD_BATCH:
            continue
        if batch is None:
            raise errors.RequestError("the body must be an Arrow IPC stream, but a batch is empty")
        if batch.offset(_COMPRESSION):
            law = "batches must not be compressed; use content-encoding: gzip"
            raise errors.RequestError(f"{law}, but one is")
        rows += batch.long(_LENGTH) if kind == _RECORD_BATCH else 0
    if rows:
        protocol.check_rows(rows)


def _messages(reader: Any) -> Any:
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message is None:
            return
        yield message


class _Flat:
    """A table of a FlatBuffer; struct.error where it points outside."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._fields = position - struct.unpack_from("<i", data, position)[0]
        self._size = struct.unpack_from("<H", data, self._fields)[0]

    @classmethod
    def root(cls, data: bytes) -> _Flat:
        return cls(data, struct.unpack_from("<I", data)[0])

    def offset(self, field: int) -> int:
        """Where a field is, from the start of the table; 0 if it is absent."""
        slot = 4 + 2 * field
        absent = slot >= self._size
        return 0 if absent else struct.unpack_from("<H", self._data, self._fields + slot)[0]

    def byte(self, field: int) -> int:
        offset = self.offset(field)
        return self._data[self._position + offset] if offset else 0

    def long(self, field: int) -> int:
        offset = self.offset(field)
        return struct.unpack_from("<q", self._data, self._position + offset)[0] if offset else 0

    def table(self, field: int) -> _Flat | None:
        offset = self.offset(field)
        if not offset:
            return None
        place = self._position + offset
        return _Flat(self._data, place + struct.unpack_from("<I", self._data, place)[0])


def _check_types(known: pa.Schema) -> None:
    name, count = Counter(known.names).most_common(1)[0] if known.names else ("", 0)
    if count > 1:
        raise errors.RequestError("columns must have different names", field=name[:100])
    for field in known:
        if not _is_taken(field.type):
            law = "a column must hold numbers, booleans, texts, dates or times"
            raise errors.RequestError(f"{law}, but got {field.type}", field=field.name[:100])


def _is_taken(kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return bool(types.is_string(kind.value_type) or types.is_large_string(kind.value_type))
    checks = (
        *(types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null),
        *(types.is_string, types.is_large_string, types.is_date, types.is_timestamp),
    )
    return any(check(kind) for check in checks)


def _decoded(table: pa.Table) -> pa.Table:
    """The table with dictionaries as texts, which may have `MOST_BYTES` together."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = 0
    for index, field in enumerate(table.schema):
        if not pa.types.is_dictionary(field.type):
            continue
        for chunk in table.column(index).iterchunks():
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
            size += pc.sum(lengths).as_py() or 0
        if size > protocol.MOST_BYTES:
            raise protocol.too_many_bytes()
        texts = table.column(index).cast(pa.large_string())
        table = table.set_column(index, field.name, texts)
    return table


def _write(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


ARROW = Table(b"application/vnd.apache.arrow.stream", _read, _write)
