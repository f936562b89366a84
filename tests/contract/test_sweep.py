"""Contents that nothing refers to are removed, and nothing else is, on both storages."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eagleray import cli, errors, storage
from eagleray.state import documents, runs, searches, sweep
from eagleray.state.models import Registry
from eagleray.storage import blobs

NOW, DAY = timedelta(seconds=-2), timedelta(days=1)
"""A grace period below nothing: servers tell times of whole seconds."""


class Meddled:
    """A storage in which something happens once, right before a request; its clock may stand."""

    def __init__(
        self,
        real: storage.Storage,
        before: str,
        act: Callable[[], object],
        clock: datetime | None = None,
    ) -> None:
        self._real, self._before, self._act = real, before, act
        self.uri, self._clock = real.uri, clock

    def clock(self) -> datetime | None:
        return self._clock or self._real.clock()

    def __getattr__(self, name: str) -> Any:
        if name == self._before:
            self._before = ""
            self._act()
        return getattr(self._real, name)


def fill(store: storage.Storage) -> set[str]:
    """Each kind of document that refers to a content; the contents."""
    records = searches.Records(store, "spam", "0123456789ab")
    parts = [blobs.put(store, text) for text in (b"weights", b"more", b"state", b"other")]
    records.save(searches.Record(number=1, values={}, weights=tuple(parts[:2])))
    saved = searches.Checkpoint(epoch=1, files={"model": parts[2]}, others=[{"model": parts[3]}])
    records.save_state(1, records.state(1, {}), [saved])
    version = Registry(store).register("spam", {"model": b"model"}, {})
    Registry(store).promote("spam", 1)
    run = runs.Run("spam", "ba9876543210", store.uri)
    runs.send(run, b"package", settled=True)
    runs.put(run, runs.Begun(search="0123456789ab"))
    package = runs.Sent.read(store, "runs/spam/ba9876543210.json").package
    return {blobs.key(one) for one in (*parts, *version.files.values(), package)}


def contents(store: storage.Storage) -> set[str]:
    return {entry.key for entry in store.list(blobs.PREFIX)}


def test_what_documents_refer_to_stays_and_the_rest_goes(store: storage.Storage) -> None:
    referenced = fill(store)
    loose = blobs.put(store, b"loose")
    store.put(f"{blobs.PREFIX}readme", b"no content of ours")
    seen = sweep.sweep(store, NOW, dry_run=True)
    assert [one.key for one in seen.removed] == [blobs.key(loose)]
    assert blobs.key(loose) in contents(store)
    done = sweep.sweep(store, NOW)
    assert {one.key for one in done.referenced} == referenced
    assert [one.key for one in done.removed] == [blobs.key(loose)]
    assert contents(store) == {*referenced, f"{blobs.PREFIX}readme"}
    assert sweep.sweep(store, NOW).removed == []


def test_what_is_young_stays_also_when_the_servers_clock_jumps_back(
    store: storage.Storage,
) -> None:
    loose = blobs.put(store, b"loose")
    (written,) = store.list(blobs.PREFIX)
    before = Meddled(store, "", contents, written.modified - DAY)
    for done in (sweep.sweep(store, DAY), sweep.sweep(before, timedelta())):
        assert [one.key for one in done.young] == [blobs.key(loose)]
    assert contents(store) == {blobs.key(loose)}


def test_the_command_says_how_many_and_how_large(
    store: storage.Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store)
    loose = blobs.put(store, b"loose")
    command = ["storage", "sweep", "--storage", store.uri]
    assert cli.main([*command, "--older-than", "1d"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "referenced by 6 documents 6 contents 33 bytes" in told
    assert "not referenced, younger than 1d 1 contents 5 bytes" in told
    assert cli.main([*command, "--older-than", "1 day"]) == 2
    assert "must be a number and s, m, h or d, but got '1 day'" in capsys.readouterr().err
    while next(one for one in store.list(blobs.key(loose))).modified >= _now(store):
        time.sleep(0.1)
    assert cli.main([*command, "--older-than", "0s", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert blobs.key(loose) in told["keys"]
    assert told["referenced"] == {"contents": 6, "bytes": 33}
    assert told["removed"] == {"contents": 1, "bytes": 5}


def _now(store: storage.Storage) -> datetime:
    return store.clock() or datetime.now(UTC)


@pytest.mark.parametrize(
    ("key", "document", "error"),
    [
        ("models/spam/versions/2.json", b'{"kind": "ver', errors.CorruptObjectError),
        ("searches/a/b/trials/00001.json", b'{"kind": "trial", "format": 9}', None),
        ("models/spam/routes.json", b'{"kind": "route", "format": 1}', None),
        ("runs/spam/b.json", b'{"kind": "run", "format": 2, "written_by": "7.1.0"}', None),
    ],
)
def test_a_document_that_cannot_be_read_stops_the_sweep(
    store: storage.Storage, key: str, document: bytes, error: type[Exception] | None
) -> None:
    before = fill(store) | {blobs.key(blobs.put(store, b"loose"))}
    store.put(key, document)
    with pytest.raises(error or errors.NewerFormatError, match=key):
        sweep.sweep(store, NOW)
    assert contents(store) == before


def test_what_an_unknown_field_refers_to_stays(store: storage.Storage) -> None:
    blob = blobs.put(store, b"of a newer release")
    store.put("models/spam/aliases.json", b'{"values": {}, "x": ["%s"]}' % blob.sha256.encode())
    assert sweep.sweep(store, NOW).removed == []


def test_what_is_written_anew_while_documents_are_read_stays(store: storage.Storage) -> None:
    """As by a search that ends with the weights of one whose records were deleted."""
    blobs.put(store, b"model")
    (old,) = store.list(blobs.PREFIX)
    limit, registry = old.modified + timedelta(seconds=0.1), Registry(store)
    store.put("models/other.json", b"{}")

    def register() -> None:
        while next(iter(store.list(blobs.PREFIX))).modified < limit:
            blobs.put(store, b"model")
        registry.register("spam", {"model": b"model"}, {})

    done = sweep.sweep(Meddled(store, "get", register, limit), timedelta())
    assert ([one.key for one in done.young], done.removed) == ([old.key], [])
    assert registry.read(registry.version("spam", 1), "model") == b"model"


def test_a_document_that_vanishes_while_the_sweep_reads_is_no_error(
    store: storage.Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_READERS", 1)  # nobody reads it first
    fill(store)
    key = "runs/spam/ba9876543210.json"
    package = runs.Sent.read(store, key).package
    done = sweep.sweep(Meddled(store, "get", lambda: store.delete(key)), NOW)
    assert [one.key for one in done.removed] == [blobs.key(package)]


def test_of_two_sweeps_at_once_one_removes(store: storage.Storage) -> None:
    blobs.put(store, b"loose")
    store.put("models/other.json", b"{}")
    taken: list[sweep.Report] = []
    other = Meddled(store, "get", lambda: taken.append(sweep.sweep(store, NOW)))
    assert (sweep.sweep(other, NOW).removed, len(taken[0].removed)) == ([], 1)
    assert contents(store) == set()
