"""Deadlines, departures, rates and request ids, at the door of the application."""

import asyncio
import contextlib
import json
import logging
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from ray._common.formatters import JSONFormatter

from eagleray import errors
from eagleray.state import aliases
from serving import (
    batching,
    correlation,
    deadlines,
    guard,
    metrics,
    predictor,
    rates,
    routing,
    web,
)
from tests import bundles

BODY = msgspec.json.encode({"instances": bundles.instances(bundles.rows(1, seed=3))})


class Model:
    """A replica whose batches wait until `go` is set; `ran` counts their rows."""

    def __init__(self, folder: Path) -> None:
        self.go, self.began, self.ran = threading.Event(), threading.Event(), 0
        observer = metrics.Metrics(folder, "left")
        self.application = web.Application("left", observer)
        loaded = bundles.make()
        loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
        predict, thread = loaded.predict_columns, ThreadPoolExecutor(1)

        def slow(columns: Any) -> Any:
            self.ran += len(next(iter(columns.values())))
            self.began.set()
            self.go.wait(60)
            return predict(columns)

        loaded.predict_columns = slow  # type: ignore[method-assign]
        made = predictor.Predictor(loaded, batching.Limits(), thread, observer)
        self.application.predictor = made


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        made = Model(tmp_path / "metrics")
        yield made
        made.go.set()


class Client:
    """One request by ASGI; `leave` closes its connection."""

    def __init__(self, application: web.Application, **headers: str) -> None:
        self.status, self.headers, self.body = 0, dict[bytes, bytes](), b""
        self._gone, self._sent = asyncio.Event(), False
        given = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": given}
        scope["client"] = ("10.0.0.1", 1)
        self.task = asyncio.create_task(application(scope, self._receive, self._send))

    def leave(self) -> None:
        self._gone.set()

    async def _receive(self) -> dict[str, object]:
        if self._sent:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        self._sent = True
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.headers |= dict(message.get("headers", ()))
        self.body += message.get("body", b"")

    @property
    def kind(self) -> str:
        return str(msgspec.json.decode(self.body)["error"]["type"])


async def busy(model: Model) -> Client:
    """A client whose row is being predicted, so that those of others wait in the queue."""
    first = Client(model.application)
    await asyncio.to_thread(model.began.wait, 60)
    return first


def test_a_request_beyond_its_deadline_is_refused_and_not_computed(model: Model) -> None:
    async def work() -> Client:
        first = await busy(model)
        late = Client(model.application, x_request_timeout_ms="20")
        await late.task
        assert model.application.capacity.rows == 1  # only the first one's
        model.go.set()
        await first.task
        assert first.status == 200
        return late

    late = asyncio.run(work())
    assert (late.status, late.kind, model.ran) == (504, "deadline", 1)


def test_a_deadline_that_is_kept_changes_nothing(model: Model) -> None:
    model.go.set()

    async def work() -> Client:
        client = Client(model.application, x_request_timeout_ms="60000")
        await client.task
        return client

    assert asyncio.run(work()).status == 200


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "", "9" * 400, "3600001"])
def test_a_deadline_that_is_no_number_is_refused(model: Model, given: str) -> None:
    async def work() -> Client:
        client = Client(model.application, x_request_timeout_ms=given)
        await client.task
        return client

    client = asyncio.run(work())
    assert (client.status, client.kind) == (422, "invalid")


def test_the_row_of_a_client_that_left_is_not_computed(model: Model) -> None:
    async def work() -> int:
        first = await busy(model)
        gone = Client(model.application)
        await asyncio.sleep(0)
        gone.leave()
        await gone.task
        assert model.application.capacity.rows == 1
        model.go.set()
        await first.task
        return gone.status

    assert asyncio.run(work()) == deadlines.LEFT
    assert model.ran == 1
    assert ("predict", deadlines.LEFT, "") in dict(model.application._metrics._answered)


def test_a_cancelled_server_is_not_taken_for_a_client_that_left(model: Model) -> None:
    async def work() -> None:
        first = await busy(model)
        other = Client(model.application)
        await asyncio.sleep(0)
        other.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other.task
        model.go.set()
        await first.task

    asyncio.run(work())


@pytest.mark.parametrize(
    ("shadow", "chance", "failed"),
    [(False, 0.2, (0, 2)), (False, 0.7, (2, 0)), (True, 0.7, (0, 0))],
    ids=["candidate", "control", "control of a shadow"],
)
def test_what_clients_do_not_wait_for_counts_against_the_version_that_was_to_answer(
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    shadow: bool,
    chance: float,
    failed: tuple[int, int],
) -> None:
    """Else the slower a candidate is, the less is known of it."""
    slow = model.application.predictor
    assert slow is not None
    schedule = batching.Schedule(0.001)
    split = routing.Split("r1", model.application.capacity, slow.outcome, schedule)
    route = aliases.Route(rollout="r1", candidate=3, share=0.5, shadow=shadow)
    split.follow(slow, slow, slow, route)
    model.application.split = split
    monkeypatch.setattr(random, "random", lambda: chance)

    async def work() -> tuple[int, int]:
        late = Client(model.application, x_request_timeout_ms="20")
        await late.task
        gone = Client(model.application)
        await asyncio.sleep(0)
        gone.leave()
        await gone.task
        return late.status, gone.status

    assert asyncio.run(work()) == (504, deadlines.LEFT)
    counted = split.stable.counts(), split.candidate.counts()
    assert tuple(one.errors for one in counted) == failed
    assert tuple(one.requests for one in counted) == failed


def test_listeners_of_slow_requests_end_with_them(model: Model) -> None:
    async def work() -> None:
        departures = model.application.departures
        first = await busy(model)
        while not departures._listening:
            await asyncio.sleep(0.01)
        model.go.set()
        await first.task
        assert first.status == 200
        await asyncio.sleep(0)
        assert not departures._listening | departures._old | departures._new
        assert not departures._left
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())


def test_a_rate_refills_and_callers_do_not_share_it() -> None:
    clock = SimpleNamespace(now=0.0)
    limits = rates.Rates(2.0, 3.0, lambda: clock.now)

    def taken(caller: str, count: int) -> int:
        answered = 0
        for _ in range(count):
            with contextlib.suppress(errors.RequestError):
                limits.check(caller)
                answered += 1
        return answered

    assert (taken("a", 10), taken("b", 2)) == (3, 2)
    clock.now = 1.0
    assert (taken("a", 10), taken("b", 10)) == (2, 3)
    clock.now = 1e6
    assert taken("a", 10) == 3


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_CALLERS", 10)
    limits = rates.Rates(1.0, 1.0, lambda: 0.0)
    for caller in range(100):
        limits.check(caller)
    assert len(limits._buckets) == 10


def test_a_caller_beyond_its_rate_is_told_when_to_come_back(model: Model) -> None:
    model.go.set()
    limits = rates.Rates(1.0, 1.0, lambda: 0.0)
    model.application.guard = guard.Guard(None, limits, client_header="x-real-ip")

    async def work() -> list[Client]:
        clients = [Client(model.application, x_real_ip=one) for one in ("1.1.1.1", "2.2.2.2")]
        clients += [Client(model.application, x_real_ip="1.1.1.1"), Client(model.application)]
        await asyncio.gather(*(one.task for one in clients))
        return clients

    clients = asyncio.run(work())
    assert [one.status for one in clients] == [200, 200, 429, 200]
    assert clients[2].kind == "too_many_requests"
    assert clients[2].headers[b"retry-after"] == b"1"


def test_every_answer_has_the_id_of_its_request(model: Model) -> None:
    model.go.set()

    async def work() -> list[bytes]:
        given = ["mine-1", "a b", "x" * 200]
        clients = [Client(model.application, x_request_id=one) for one in given]
        clients.append(Client(model.application, x_request_timeout_ms="no"))
        await asyncio.gather(*(one.task for one in clients))
        return [one.headers[b"x-request-id"] for one in clients]

    mine, *made = asyncio.run(work())
    assert mine == b"mine-1"
    assert all(len(one) == 16 for one in made)
    assert len(set(made)) == 3


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_log_of_a_failure_names_request_and_trace_but_no_row(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("the model failed")

    assert model.application.predictor is not None
    model.application.predictor.bundle.predict_columns = fail  # type: ignore[method-assign,assignment]

    async def work() -> Client:
        client = Client(model.application, x_request_id="mine-1", traceparent=TRACE)
        await client.task
        return client

    with caplog.at_level(logging.DEBUG):
        client = asyncio.run(work())
    assert (client.status, client.kind) == (500, "internal")
    assert "request mine-1 of trace 0af7651916cd43dd8448eb211c80319c" in caplog.text
    row = msgspec.json.decode(BODY)["instances"][0]
    assert row["note"] not in caplog.text


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00-0-0-01",
        f"ff{TRACE[2:]}",
        TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        "é",
    ],
)
def test_an_invalid_trace_is_ignored(parent: str) -> None:
    known = correlation.fields({b"traceparent": parent.encode()}, b"1")
    assert known == {"request_id": "1"}
    assert correlation.described(known) == "request 1"


def test_a_line_of_a_json_log_has_request_trace_and_what_was_answered(model: Model) -> None:
    """By Ray Serve's own formatter, which `logs: json` chooses for a replica."""
    lines: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(json.loads(JSONFormatter().format(record)))  # type: ignore[method-assign]
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        model.application.access_log = True
        model.go.set()

        async def work() -> None:
            await Client(model.application, x_request_id="mine-1", traceparent=TRACE).task

        asyncio.run(work())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    (line,) = lines
    assert (line["request_id"], line["trace_id"]) == ("mine-1", TRACE[3:35])
    assert (line["method"], line["path"], line["status"]) == ("POST", "/predict", 200)
    assert line["milliseconds"] > 0
    assert line["message"] == "POST /predict 200"
