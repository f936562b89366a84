"""CSV with a header, in UTF-8, by RFC 4180."""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import TYPE_CHECKING

from eagleray import errors
from serving import protocol
from serving.wire.table import Table

if TYPE_CHECKING:
    import pyarrow as pa


def _read(body: protocol.Body) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv

    names = _header(body)
    table = pyarrow.csv.read_csv(
        io.BytesIO(body),
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, skip_rows=1, use_threads=False, block_size=len(body) + 1
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.large_string()), strings_can_be_null=False
        ),
    )
    protocol.check_rows(table.num_rows)
    return table


def _header(body: protocol.Body) -> list[str]:
    """The cells of the first line, which must have different names."""
    first = body[: body.find(b"\n") + 1 or len(body)].decode("utf-8-sig")
    names = [name.strip() for name in next(csv.reader([first]), [])]
    if not names:
        raise errors.RequestError("the body must be CSV with a header, but is empty")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise errors.RequestError("columns must have different names", field=name[:100])
    return names


def _write(table: pa.Table) -> bytes:
    import pyarrow.csv

    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


CSV = Table(b"text/csv", _read, _write)
