"""API keys: what the file may hold, who is let in, and how keys are replaced while it serves."""

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from eagleray import apikeys, cli, errors
from serving import batching, guard, keys, metrics, predictor, web
from tests import bundles

BODY = {"instances": bundles.instances(bundles.rows(1, seed=3))}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 10.0
        return self.now


def key(file: Path, identity: str, *scopes: str) -> str:
    """Add a key to the file, and return it."""
    text, record = apikeys.new(identity, scopes)
    before = file.read_text() if file.exists() else "# keys\n"
    file.write_text(before + record.line() + "\n")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    return text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def application(tmp_path: Path) -> Iterator[web.Application]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        observer = metrics.Metrics(tmp_path / "metrics", "left")
        made = web.Application("left", observer)
        loaded = bundles.make()
        loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
        thread = ThreadPoolExecutor(1)
        made.predictor = predictor.Predictor(loaded, batching.Limits(), thread, observer)
        yield made


def ask(application: web.Application, method: str, path: str, **options: object) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            return await client.request(method, path, **options)  # type: ignore[arg-type]

    return asyncio.run(work())


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_a_request_without_a_known_key_is_refused_and_told_how_to_give_one(
    application: web.Application, file: Path
) -> None:
    key(file, "team", "predict")
    application.guard = guard.Guard(keys.Keys(file))
    for headers in ({}, bearer("er_wrong"), bearer(""), {"authorization": "Basic dGVhbQ=="}):
        answer = ask(application, "POST", "/predict", json=BODY, headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_is_taken_from_either_header(application: web.Application, file: Path) -> None:
    text = key(file, "team", "predict")
    application.guard = guard.Guard(keys.Keys(file))
    for headers in (bearer(text), {"authorization": f"bearer  {text}"}, {"x-api-key": text}):
        assert ask(application, "POST", "/predict", json=BODY, headers=headers).status_code == 200


def test_each_scope_opens_its_own_pages_and_health_needs_no_key(
    application: web.Application, file: Path
) -> None:
    team, operator = key(file, "team", "predict"), key(file, "operator", "admin")
    application.guard = guard.Guard(keys.Keys(file))

    def status(path: str, headers: dict[str, str]) -> int:
        return ask(application, "GET", path, headers=headers).status_code

    for path in ("/healthz", "/readyz", "/docs", "/docs/swagger-ui.css"):
        assert status(path, {}) == 200
    for path in ("/", "/openapi.json", "/v1/models/left"):
        assert [status(path, one) for one in ({}, bearer(operator), bearer(team))] == [
            401,
            403,
            200,
        ]
    assert [status("/metrics", one) for one in ({}, bearer(team), bearer(operator))] == [
        401,
        403,
        200,
    ]
    assert status("/nothing", {}) == 401


def test_keys_rotate_while_it_serves(file: Path) -> None:
    old = key(file, "old", "predict")
    known = keys.Keys(file, Clock())
    new = key(file, "new", "predict")
    assert known.check("/predict", {b"x-api-key": new.encode()}) == "new"
    assert known.check("/predict", {b"x-api-key": old.encode()}) == "old"
    file.write_text(file.read_text().replace("old", "# old"))
    with pytest.raises(errors.RequestError, match="got another"):
        known.check("/predict", {b"x-api-key": old.encode()})


def test_a_file_swapped_by_a_link_as_a_secret_is_read_again(tmp_path: Path) -> None:
    """Kubernetes replaces the link `..data` of a mounted Secret."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = (key(tmp_path / name / "keys", name, "predict") for name in ("one", "two"))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys").symlink_to("..data/keys")
    known = keys.Keys(tmp_path / "keys", Clock())
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(tmp_path / "..data")
    assert known.check("/predict", {b"x-api-key": second.encode()}) == "two"
    with pytest.raises(errors.RequestError, match="must be given"):
        known.check("/predict", {b"x-api-key": first.encode()})


@pytest.mark.parametrize("damage", ["", "# none\n", "team predict\n", "\udc80", None])
def test_a_damaged_file_keeps_the_last_good_keys_and_is_logged(
    file: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    text = key(file, "team", "predict")
    known = keys.Keys(file, Clock())
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage.encode("utf-8", "surrogateescape"))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert known.check("/predict", {b"x-api-key": text.encode()}) == "team"
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "the keys of before stay"
    ]


@pytest.mark.parametrize("damage", ["", "team predict\n"])
def test_at_start_a_damaged_file_refuses_to_serve(file: Path, damage: str) -> None:
    with pytest.raises(errors.UserError, match="must"):
        keys.Keys(file)
    file.write_text(damage)
    with pytest.raises(errors.UserError, match="keys"):
        keys.Keys(file)


HASH = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("line", "law"),
    [
        (f"te/am predict {HASH}", "an id must be"),
        (f"team predit {HASH}", "did you mean 'predict'"),
        ("team predict er_my-secret-key", "a SHA-256 must be"),
        (f"a predict {HASH}\nb admin {HASH}", "is there twice"),
        (f"a predict {HASH}\na admin {HASH[::-1]}", "is there twice"),
    ],
)
def test_a_wrong_line_is_named_and_what_may_be_a_key_is_not_shown(line: str, law: str) -> None:
    with pytest.raises(errors.UserError, match=law) as raised:
        apikeys.parse(line, "keys")
    assert "my-secret-key" not in str(raised.value)


def test_the_command_prints_a_key_once_and_a_line_that_lets_it_in(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["keys", "new", "--id", "ci", "--scope", "predict", "--scope", "admin", "--json"]
    assert cli.main(arguments) == 0
    made = json.loads(capsys.readouterr().out)
    file.write_text(made["line"])
    assert made["key"] not in made["line"]
    assert keys.Keys(file).check("/metrics", {b"x-api-key": made["key"].encode()}) == "ci"
    assert cli.main(["keys", "new", "--id", "ci", "--scope", "root"]) == 2
    assert "--scope: a scope must be one of predict, admin" in capsys.readouterr().err
    for identity in ("a b", "", "x" * 64, "a predict"):
        assert cli.main(["keys", "new", "--id", identity]) == 2
        assert "--id: an id must be letters, digits, dots" in capsys.readouterr().err


def test_pages_of_other_origins_are_not_let_in(application: web.Application) -> None:
    origin = {"origin": "https://example.com", "access-control-request-method": "POST"}
    asked = ask(application, "OPTIONS", "/predict", headers=origin)
    answer = ask(application, "POST", "/predict", json=BODY, headers=origin)
    assert (asked.status_code, answer.status_code) == (405, 200)
    for one in (asked, answer):
        assert not [name for name in one.headers if name.startswith("access-control-")]


def test_no_key_is_logged(
    application: web.Application, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = key(file, "team", "predict")
    application.guard = guard.Guard(keys.Keys(file, Clock()))
    with caplog.at_level(logging.DEBUG):
        for given in (text, "er_wrong-one"):
            ask(application, "POST", "/predict", json=BODY, headers=bearer(given))
    assert text not in caplog.text
    assert "er_wrong-one" not in caplog.text
