"""Sampled requests and answers, as they are kept in storage."""

import asyncio
import dataclasses
import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from eagleray import errors, storage
from serving import batching, capture, metrics, predictor, web
from tests import bundles

ROWS = bundles.instances(bundles.rows(3, seed=3))
DAY_S = 1_700_000_000.0
WORDS = np.array(["young"], object)


class Counts:
    def __init__(self) -> None:
        self.kept = self.dropped = 0

    def captured(self, rows: int) -> None:
        self.kept += rows

    def not_captured(self, rows: int) -> None:
        self.dropped += rows


@pytest.fixture
def store(tmp_path: Path) -> storage.Storage:
    (tmp_path / "storage").mkdir()
    return storage.open((tmp_path / "storage").as_uri())


def made(store: storage.Storage, privacy: capture.Privacy | None = None, share: float = 1.0) -> Any:
    counts = Counts()
    privacy = privacy or capture.Privacy()
    return capture.Capture(store, "left", share, privacy=privacy, observer=counts), counts


def sample(
    rows: int = 1,
    size: int = 10,
    columns: Callable[[Sequence[Any]], dict[str, np.ndarray]] | None = None,
    time_s: float = DAY_S,
) -> capture.Sample:
    answers = [{"label": "no", "warnings": ["city: 'Secret' was not seen"]}] * rows
    given = columns or (lambda rows: {"age": np.arange(float(len(rows)))})
    return capture.Sample("r1", time_s, 3, range(rows), size, given, answers)


def tables(store: storage.Storage) -> dict[str, pa.Table]:
    listed = [one.key for one in store.list("captures/")]
    return {key: parquet.read_table(io.BytesIO(store.get(key))) for key in listed}


@pytest.fixture
def application(tmp_path: Path, store: storage.Storage) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        observer = metrics.Metrics(tmp_path / "metrics", "left")
        application = web.Application("left", observer)
        samples = capture.Capture(store, "left", 1.0, privacy=capture.Privacy(), observer=observer)
        loaded = bundles.make()
        loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
        application.samples = samples
        application.predictor = predictor.Predictor(
            loaded, batching.Limits(), ThreadPoolExecutor(1), observer, samples=samples
        )
        yield application


def ask(application: web.Application, **options: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            return await client.post("/predict", **options)

    return asyncio.run(work())


def test_requests_and_answers_are_kept_as_they_were(
    application: web.Application, store: storage.Storage
) -> None:
    answer = ask(application, json={"instances": ROWS}, headers={"x-request-id": "mine"})
    assert ask(application, json={"instances": []}).status_code == 422
    assert application.samples is not None
    application.samples.flush()
    ((key, table),) = tables(store).items()
    date = table["time"][0].as_py().date().isoformat()
    assert key.startswith(f"captures/left/date={date}/")
    found = table.to_pylist()
    assert [(one["request_id"], one["row"], one["version"]) for one in found] == [
        ("mine", place, 3) for place in range(3)
    ]
    assert [one["input.age"] for one in found] == [row["age"] for row in ROWS]
    assert [one["input.city"] for one in found] == [row["city"] for row in ROWS]
    assert [one["input.income $"] for one in found] == [row["income $"] for row in ROWS]
    expected = [one["probability"] for one in answer.json()["predictions"]]
    assert [one["answer.probability"] for one in found] == expected


def test_a_share_of_zero_keeps_nothing_and_a_share_keeps_about_as_many(
    store: storage.Storage,
) -> None:
    samples, _ = made(store, share=0.25)
    drawn = 0
    for _ in range(4000):
        samples.sample(b"x")
        drawn += capture.sampled.get() is not None
    capture.sampled.set(None)
    assert 800 < drawn < 1200  # seven deviations


def test_excluded_columns_are_not_kept_and_hashed_ones_only_as_keyed_hashes(
    store: storage.Storage, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    privacy = capture.Privacy.of(("name",), ("email",), str(key))
    samples, _ = made(store, privacy)
    values = {
        "name": np.array(["Ada", "Bob"], object),
        "email": np.array(["a@x", None], object),
        "age": np.array([1.0, np.nan]),
    }
    samples.offer(sample(2, columns=lambda _: values))
    samples.flush()
    (table,) = tables(store).values()
    assert not {"input.name"} & set(table.column_names)
    hashed, missing = table["input.email"].to_pylist()
    assert (len(hashed), missing) == (32, None)
    assert table["input.age"].to_pylist() == [1.0, None]
    (data,) = [store.get(one.key) for one in store.list("captures/")]
    for secret in (b"Ada", b"a@x", b"Secret"):
        assert secret not in data
    assert table["answer.warnings"].to_pylist() == [1, 1]


@pytest.mark.parametrize("content", [None, "short"])
def test_hashes_need_a_key(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "key"
    if content:
        file.write_text(content)
    with pytest.raises(errors.UserError, match="key"):
        capture.Privacy.of((), ("email",), str(file))


def test_a_misspelt_column_is_logged_once_a_version(
    store: storage.Storage, caplog: pytest.LogCaptureFixture
) -> None:
    samples, _ = made(store, capture.Privacy(exclude=frozenset(["agee"])))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            samples.offer(sample())
        samples.flush()
    assert [record.message.split("got ")[1] for record in caplog.records] == ["agee"]


@pytest.mark.parametrize(
    ("rows", "size"), [(capture.MOST_ROWS // 4, 1), (1, capture.MOST_BYTES // 4)]
)
def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(
    store: storage.Storage, rows: int, size: int
) -> None:
    samples, counts = made(store)
    for _ in range(6):
        samples.offer(sample(rows, size))
    assert counts.dropped == 2 * rows
    samples.flush()
    assert counts.kept == 4 * rows
    samples.offer(sample())
    samples.flush()
    assert counts.kept == 4 * rows + 1


def test_what_storage_refuses_is_dropped_counted_and_logged(
    store: storage.Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, counts = made(store)

    def refuse(key: str, data: bytes) -> str:
        raise errors.StorageUnavailableError("down")

    monkeypatch.setattr(store, "put", refuse)
    samples.offer(sample(5))
    samples.flush()
    assert (counts.kept, counts.dropped) == (0, 5)
    assert "5 captured rows are dropped: down" in caplog.text


def test_what_is_in_the_queue_is_written_when_it_stops(store: storage.Storage) -> None:
    samples, counts = made(store)
    samples.start()
    samples.offer(sample(2))
    samples.stop()
    assert counts.kept == 2
    assert len(tables(store)) == 1


def test_a_full_file_is_written_at_once_and_days_have_files_of_their_own(
    store: storage.Storage,
) -> None:
    samples, _ = made(store)
    samples.offer(sample(1, time_s=DAY_S))
    samples.offer(sample(1, time_s=DAY_S + 86_400))
    samples.flush()
    dates = sorted(key.split("/")[2] for key in tables(store))
    assert dates == ["date=2023-11-14", "date=2023-11-15"]


def test_versions_have_files_of_their_own_whatever_their_columns_hold(
    store: storage.Storage,
) -> None:
    samples, _ = made(store)
    samples.offer(sample())
    samples.offer(dataclasses.replace(sample(columns=lambda _: {"age": WORDS}), version=4))
    samples.flush()
    found = [table["input.age"].to_pylist() for table in tables(store).values()]
    assert sorted(found, key=str) == [["young"], [0.0]]
