"""Spans of requests and batches, as a collector gets them by OTLP over HTTP."""

import asyncio
import gzip
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from eagleray import errors
from serving import batching, metrics, predictor, tracing, web
from tests import bundles

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROWS = bundles.instances(bundles.rows(3, seed=3))


class Collector(http.server.ThreadingHTTPServer):
    """Takes spans as a collector does; `spans` are what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []


class _Request(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append(values(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def values(attributes: Any) -> dict[str, Any]:
    return {
        one.key: one.value.string_value
        if one.value.HasField("string_value")
        else one.value.int_value
        for one in attributes
    }


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{made.server_address[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "churn-endpoint")
    monkeypatch.setenv(metrics.FOLDER, "")
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def answered(folder: Path, bodies: list[bytes], **headers: str) -> list[httpx.Response]:
    """Answers to requests that are sent at once; their spans have been sent then."""
    spans = tracing.Tracing.of_environment("left")
    assert spans is not None
    observer = metrics.Metrics(folder / "metrics", "left")
    application, loaded = web.Application("left", observer), bundles.make()
    application.tracing = spans
    loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)

    async def work() -> list[httpx.Response]:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            sent = [client.post("/predict", content=body, headers=headers) for body in bodies]
            return list(await asyncio.gather(*sent))

    with ThreadPoolExecutor(1) as thread:
        application.predictor = predictor.Predictor(
            loaded, batching.Limits(), thread, observer, spans=spans
        )
        found = asyncio.run(work())
    spans.stop()
    return found


def test_a_request_and_its_batch_are_spans_of_the_clients_trace(
    collector: Collector, tmp_path: Path
) -> None:
    body = json.dumps({"instances": ROWS}).encode()
    (answer,) = answered(tmp_path, [body], traceparent=PARENT)
    assert answer.status_code == 200
    by_name = {one.name: one for one in collector.spans}
    request, batch = by_name["POST"], by_name["batch"]
    assert request.trace_id.hex() == batch.trace_id.hex() == PARENT[3:35]
    assert request.parent_span_id.hex() == PARENT[36:52]
    assert batch.parent_span_id == request.span_id
    assert request.start_time_unix_nano <= batch.start_time_unix_nano
    assert batch.end_time_unix_nano <= request.end_time_unix_nano
    said = values(request.attributes)
    assert said["http.response.status_code"] == 200
    assert said["eagleray.version"] == "3"
    assert said["eagleray.request_id"] == answer.headers["x-request-id"]
    assert values(batch.attributes)["eagleray.rows"] == 3
    assert collector.resources[0]["service.name"] == "churn-endpoint"
    assert collector.resources[0]["eagleray.model"] == "left"
    assert ROWS[0]["note"] not in str(collector.spans)


def test_a_batch_is_linked_to_each_of_its_requests(collector: Collector, tmp_path: Path) -> None:
    bodies = [json.dumps({"instances": [row]}).encode() for row in ROWS]
    answered(tmp_path, bodies)
    requests = {one.span_id for one in collector.spans if one.name == "POST"}
    batches = [one for one in collector.spans if one.name == "batch"]
    assert len({one.trace_id for one in collector.spans if one.name == "POST"}) == 3
    assert {link.span_id for one in batches for link in one.links} == requests
    assert sum(values(one.attributes)["eagleray.rows"] for one in batches) == 3


def test_a_failure_is_an_error_and_a_refusal_is_none(collector: Collector, tmp_path: Path) -> None:
    (answer,) = answered(tmp_path, [b"{"])
    (span,) = collector.spans
    assert (answer.status_code, span.status.code) == (400, 0)
    assert values(span.attributes)["http.response.status_code"] == 400


def test_a_collector_that_is_away_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    body = json.dumps({"instances": ROWS}).encode()
    (answer,) = answered(tmp_path, [body])
    assert answer.status_code == 200


def test_without_an_endpoint_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    script = (
        "import sys; from serving import tracing, served;"
        "assert tracing.Tracing.of_environment('left') is None;"
        "assert not [one for one in sys.modules if one.startswith('opentelemetry')]"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)


def test_an_endpoint_without_the_extra_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(tracing.VARIABLES[0], "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(errors.UserError, match=r"needs the extra eagleray\[otel\]"):
        tracing.Tracing.of_environment("left")
