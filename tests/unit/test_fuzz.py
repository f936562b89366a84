"""Whatever is sent, the endpoint answers as it says: no body, header or path makes it fail."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import batching, metrics, predictor, protocol, web
from tests import bundles

ROW: dict[str, Any] = bundles.instances(bundles.rows(2, seed=3))[1]
FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[web.Application]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        observer = metrics.Metrics(tmp_path_factory.mktemp("metrics"), "left")
        made = web.Application("left", observer)
        loaded = bundles.make()
        loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
        thread = ThreadPoolExecutor(1)
        made.predictor = predictor.Predictor(loaded, batching.Limits(), thread, observer)
        yield made


def status(
    application: web.Application,
    body: bytes,
    headers: list[tuple[bytes, bytes]] = [],  # noqa: B006
    *,
    method: str = "POST",
    path: str = "/predict",
) -> int:
    """The status of an answer, whose body is checked to be what the API says."""
    got: dict[str, Any] = {"body": b""}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        got["status"] = message.get("status", got.get("status"))
        got["body"] += message.get("body", b"")

    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(application(scope, receive, send))
    answered, content = int(got["status"]), got["body"]
    if answered >= 400:
        kind = json.loads(content)["error"]["type"]
        assert kind == protocol.ERRORS[answered][0]
    return answered


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.fixed_dictionaries({}, optional=dict.fromkeys(ROW, VALUES))


@FEW
@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(application: web.Application, body: bytes) -> None:
    assert status(application, body) in (400, 422)


@FEW
@given(VALUES)
def test_no_json_makes_it_fail(application: web.Application, value: Any) -> None:
    assert status(application, json.dumps(value).encode("utf-8", "surrogatepass")) in (400, 422)


@FEW
@given(st.lists(KNOWN, min_size=1, max_size=3))
def test_no_row_makes_it_fail(application: web.Application, rows: list[dict[str, Any]]) -> None:
    whole = [ROW | row for row in rows]
    body = json.dumps({"instances": whole}).encode("utf-8", "surrogatepass")
    assert status(application, body) in (200, 400, 422)


@FEW
@given(st.binary(max_size=200), st.integers(0, 40), st.booleans())
def test_no_gzip_makes_it_fail(
    application: web.Application, body: bytes, cut: int, packed: bool
) -> None:
    sent = gzip.compress(json.dumps({"instances": [ROW]}).encode() + body) if packed else body
    headers = [(b"content-encoding", b"gzip")]
    assert status(application, sent[: len(sent) - cut], headers) in (200, 400, 422)


NAMES = st.sampled_from(
    [
        b"content-type",
        b"content-encoding",
        b"accept-encoding",
        b"authorization",
        b"x-api-key",
        b"x-request-id",
        b"x-request-timeout-ms",
        b"traceparent",
    ]
)


@FEW
@given(st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=6))
def test_no_header_makes_it_fail(
    application: web.Application, headers: list[tuple[bytes, bytes]]
) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    assert status(application, body, headers) in (200, 400, 415, 422, 504)


@FEW
@given(st.text(max_size=40), st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]))
def test_no_path_or_method_makes_it_fail(
    application: web.Application, path: str, method: str
) -> None:
    for whole in (f"/{path}", f"/v1/models/{path}", f"/docs/{path}"):
        assert status(application, b"{}", method=method, path=whole) in (200, 404, 405, 422)
