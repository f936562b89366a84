"""Sampled requests and their answers, written to storage as Parquet by a thread.

A row of a file is a row of a request: `request_id`, `row` (its place there), `time`, `version`,
`input.{column}` as the model reads it, and what was answered as `answer.{name}`. Pictures are not
kept. Warnings are counted, not kept: they quote values.

The queue is bounded by rows and bytes: what does not fit is dropped and counted. No answer waits
for storage.
"""

from __future__ import annotations

import contextvars
import hashlib
import hmac
import io
import logging
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from eagleray import errors, storage
from eagleray.learn.schema import Columns
from eagleray.state import keys

log = logging.getLogger("ray.serve")

MOST_ROWS, MOST_BYTES = 20_000, 32 * 1024 * 1024
"""Of the queue; bytes are those of the bodies."""
FLUSH_S = 60.0
FILE_ROWS = 5_000
"""Rows in the queue that are written before `FLUSH_S` have passed."""
_STOP_S = 10.0  # for the last file
_HASH_BYTES = 16

sampled: contextvars.ContextVar[bytes | None] = contextvars.ContextVar("sampled", default=None)
"""The id of the request that is being answered, if it is to be kept."""


class Observer(Protocol):
    """What is told of rows; see `serving.metrics.Metrics`."""

    def captured(self, rows: int) -> None: ...
    def not_captured(self, rows: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """A request that was answered; `columns` gives canonical columns of any rows of its version."""

    request_id: str
    time_s: float  # since 1970
    version: int
    rows: Sequence[Any]
    size: int  # of the body, in bytes
    columns: Callable[[Sequence[Any]], Columns]
    answers: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Privacy:
    """Columns that a capture leaves out, and those that it keeps as a keyed hash."""

    exclude: frozenset[str] = frozenset()
    hash: frozenset[str] = frozenset()
    key: bytes = b""

    @classmethod
    def of(cls, exclude: Sequence[str], hashed: Sequence[str], key_file: str) -> Privacy:
        """UserError if there are hashes but the key cannot be read."""
        key = b""
        if hashed:
            try:
                key = Path(key_file).read_bytes().strip()
            except OSError as cause:
                law = f"capture_key_file must be a file, but {key_file}: {type(cause).__name__}"
                raise errors.UserError(law) from cause
            if len(key) < 32:
                raise errors.UserError(f"{key_file}: a key must have at least 32 characters")
        return cls(frozenset(exclude), frozenset(hashed), key)

    def kept(self, name: str, values: np.ndarray) -> list[Any] | np.ndarray | None:
        """What is kept of a column (B); None if nothing is."""
        if name in self.exclude or values.ndim != 1:
            return None
        return [self._hashed(value) for value in values] if name in self.hash else values

    def _hashed(self, value: object) -> str | None:
        if value is None or value != value:  # NaN is missing too
            return None
        text = str(value).encode("utf-8", "surrogatepass")
        return hmac.new(self.key, text, hashlib.sha256).hexdigest()[: 2 * _HASH_BYTES]


class Capture:
    """Keeps a share of a model's requests; `offer` never waits."""

    def __init__(
        self,
        store: storage.Storage,
        model: str,
        share: float,
        *,
        privacy: Privacy,
        observer: Observer,
    ) -> None:
        self._store, self._model, self._share = store, model, share
        self._privacy, self._observer = privacy, observer
        self._replica, self._number = uuid.uuid4().hex[:12], 0
        self._queue: deque[Sample] = deque()
        self._rows = self._bytes = 0
        self._lock = threading.Lock()  # of the queue
        self._writing = threading.Lock()
        self._wake, self._stopped = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._compared: set[int] = set()  # versions whose columns were compared with the settings

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="capture", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is in the queue, and end."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            self._thread = None

    def sample(self, request_id: bytes) -> None:
        """Decide whether the request of the current task is kept."""
        drawn = random.random() < self._share  # noqa: S311 - a draw, not a secret
        sampled.set(request_id if drawn else None)

    def offer(self, one: Sample) -> None:
        """Keep a request, or count it as dropped if the queue is full."""
        with self._lock:
            rows = len(one.rows)
            full = self._rows + rows > MOST_ROWS or self._bytes + one.size > MOST_BYTES
            if not full:
                self._queue.append(one)
                self._rows += rows
                self._bytes += one.size
        if full:
            self._observer.not_captured(rows)
        if self._rows >= FILE_ROWS:
            self._wake.set()

    def flush(self) -> None:
        """Write what is in the queue, a file for a day and a version; what fails is dropped."""
        with self._writing:
            files: dict[tuple[str, int], list[Sample]] = {}
            for one in self._taken():
                date = datetime.fromtimestamp(one.time_s, UTC).date().isoformat()
                files.setdefault((date, one.version), []).append(one)
            for (date, _), samples in files.items():
                self._write(date, samples)

    def _loop(self) -> None:
        while not self._stopped:
            self._wake.wait(FLUSH_S)
            self._wake.clear()
            self.flush()
        self.flush()

    def _taken(self) -> list[Sample]:
        with self._lock:
            taken = list(self._queue)
            self._queue.clear()
            self._rows = self._bytes = 0
        return taken

    def _write(self, date: str, samples: list[Sample]) -> None:
        rows = sum(len(one.rows) for one in samples)
        self._number += 1
        key = keys.CAPTURE.format(
            model=self._model, date=date, replica=self._replica, number=self._number
        )
        try:
            self._store.put(key, self._parquet(samples))
        except Exception as cause:  # noqa: BLE001 - a thread that ended would keep nothing more
            log.warning("%s: %s captured rows are dropped: %s", self._model, rows, _said(cause))
            self._observer.not_captured(rows)
            return
        self._observer.captured(rows)

    def _parquet(self, samples: list[Sample]) -> bytes:
        import pyarrow as pa
        from pyarrow import parquet

        sink = io.BytesIO()
        parquet.write_table(pa.table(self._columns(samples)), sink, compression="zstd")
        return sink.getvalue()

    def _columns(self, samples: list[Sample]) -> dict[str, Any]:
        """Columns of all rows of a version at once: a table for each request takes far longer."""
        import pyarrow as pa

        of, first = [one for one in samples for _ in one.rows], samples[0]
        times = [datetime.fromtimestamp(one.time_s, UTC) for one in of]
        found: dict[str, Any] = {
            "request_id": pa.array([one.request_id for one in of]),
            "row": pa.array([row for one in samples for row in range(len(one.rows))], pa.int32()),
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "version": pa.array([first.version] * len(of), pa.int32()),
        }
        columns = first.columns([row for one in samples for row in one.rows])
        self._tell(first.version, columns)
        for name, values in columns.items():
            kept = self._privacy.kept(name, values)
            if kept is not None:
                found[f"input.{name}"] = pa.array(kept, from_pandas=True)
        answers = [answer for one in samples for answer in one.answers]
        plain = [{**answer, "warnings": len(answer.get("warnings", ()))} for answer in answers]
        for name in dict.fromkeys(name for answer in plain for name in answer):
            found[f"answer.{name}"] = pa.array([answer.get(name) for answer in plain])
        return found

    def _tell(self, version: int, columns: Columns) -> None:
        """Log, once a version, names of the settings that are none of its columns."""
        unknown = (self._privacy.exclude | self._privacy.hash) - set(columns)
        if unknown and version not in self._compared:
            law = "%s version %s: excluded and hashed columns must be its columns, but got %s"
            log.warning(law, self._model, version, ", ".join(sorted(unknown)))
        self._compared.add(version)


def _said(cause: Exception) -> str:
    """What a log may hold of an error: those of storage name no values, others may."""
    return str(cause) if isinstance(cause, errors.StorageError) else type(cause).__name__
