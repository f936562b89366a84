"""An endpoint with keys, signatures and captures: real Ray Serve, HAProxy, HTTP and storage."""

import io
import json
import socket
from pathlib import Path

import httpx
import pytest
from pyarrow import parquet

from eagleray import apikeys, storage
from eagleray.state import signatures
from eagleray.state.models import Registry
from serving import environment, local
from serving.settings import Settings
from tests import bundles

ROWS = bundles.instances(bundles.rows(3, seed=3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Serve's own, at its import
def test_keys_signatures_and_captures_hold_through_the_whole_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "signing-key").write_text("k" * 32)
    team, record = apikeys.new("team", ["predict"])
    (tmp_path / "keys").write_text(record.line())
    store = storage.open((tmp_path / "storage").as_uri())
    monkeypatch.setenv(signatures.VARIABLE, str(tmp_path / "signing-key"))
    models = Registry(store)
    models.register("left", bundles.files(), {})
    models.promote("left", 1)
    settings = Settings(
        name="left",
        storage=(tmp_path / "storage").as_uri(),
        max_replicas=1,
        cpus=0.5,
        keys_file=str(tmp_path / "keys"),
        signing_key_file=str(tmp_path / "signing-key"),
        allow_own_code=False,
        capture=1.0,
        capture_exclude=("note",),
    )
    (port,) = environment.free_ports(1)
    with local.serving(settings, port=port) as (url, _), httpx.Client(base_url=url) as http:
        mine = {"x-api-key": team, "x-request-id": "mine"}
        assert http.post("/predict", json={"instances": ROWS}).status_code == 401
        answer = http.post("/predict", json={"instances": ROWS}, headers=mine)
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine")
        assert [http.get("/metrics", headers=one).status_code for one in ({}, mine)] == [401, 403]
        assert [http.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        smuggled = b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(b"POST /predict HTTP/1.1\r\nHost: left\r\n" + smuggled)
            assert raw.recv(65536).startswith(b"HTTP/1.1 400 ")
    (key,) = [one.key for one in store.list("captures/left/")]
    found = parquet.read_table(io.BytesIO(store.get(key))).to_pylist()
    assert {one["request_id"] for one in found} == {"mine"}
    assert [one["input.age"] for one in found] == [row["age"] for row in ROWS]
    assert "input.note" not in found[0]
    said = [one["probability"] for one in json.loads(answer.content)["predictions"]]
    assert [one["answer.probability"] for one in found] == said
