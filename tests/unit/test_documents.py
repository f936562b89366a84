"""Documents say what they are, keep what they do not know, and refuse what is too new."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eagleray
from eagleray import errors, storage
from eagleray.state import documents, runs, searches, sweep
from eagleray.state.models import Registry

LITERAL = re.compile(
    r"""["'](models|searches|runs|blobs|events|captures)/|/(versions|trials|states)/"""
    r"""|(aliases|lease|view|search|result)\.json["']"""
)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)


def test_only_state_and_storage_know_keys() -> None:
    root = Path(eagleray.__file__).parents[1]
    owners = ("eagleray/state/", "eagleray/storage/")
    known, looked = [], 0
    for part in ("eagleray", "ray_jobs", "serving", "k8s"):
        for path in (root / part).rglob("*.py"):
            name = path.relative_to(root).as_posix()
            if not name.startswith(owners):
                text = re.sub(r"/v[12]/models/\S+", "", path.read_text())  # paths of HTTP
                found, looked = LITERAL.search(text), looked + 1
                known += [f"{name}: {found[0]}"] if found else []
    assert looked > 100
    assert known == []


@given(unknown=st.dictionaries(st.text(min_size=1).filter(lambda key: key[0] == "x"), JSON))
def test_a_document_keeps_what_it_does_not_know(unknown: dict[str, Any]) -> None:
    fields = {"number": 1, "values": {"train.lr": 0.1}, "kind": "trial", "format": 2} | unknown
    record = searches.Record.decode(fields, "here")
    record.status = "finished"
    written = json.loads(record.encode())
    assert {key: written[key] for key in fields} == fields
    assert (written["status"], written["written_by"]) == ("finished", eagleray.__version__)
    assert searches.Record.decode(written, "here") == record


def test_a_format_is_migrated_step_by_step_and_written_as_the_newest() -> None:
    steps = {0: lambda found: {"name": found}, 1: lambda found: found | {"names": [found["name"]]}}

    class Thing(documents.Document):
        KIND, FORMAT, MIGRATIONS = "thing", 3, steps
        names: list[str]

    thing = Thing.decode("left", "here")
    assert thing.model_dump() == {"name": "left", "names": ["left"]}
    assert Thing.decode({"kind": "thing", "format": 2, "names": []}, "here") == Thing(names=[])
    assert json.loads(thing.encode())["format"] == 3


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kind": "trial", "format": 3, "written_by": "7.1.0"}, "EagleRay 7.1.0 reads it"),
        ({"kind": "trial", "format": 3}, "a newer EagleRay has written it"),
    ],
)
def test_a_newer_format_is_refused_with_the_version_that_reads_it(
    document: dict[str, Any], message: str
) -> None:
    law = f"here: must be of kind trial, of format 2 or older, but got 3; {message}"
    with pytest.raises(errors.NewerFormatError, match=law):
        searches.Record.decode(document, "here")


@pytest.mark.parametrize(
    "document",
    [{"kind": "view"}, {"format": "1"}, {"format": -1}, {"number": "many"}, [], "trial", None],
)
def test_what_is_no_such_document_is_named(document: Any) -> None:
    with pytest.raises(errors.CorruptObjectError, match="here: must be of kind trial, but"):
        searches.Record.decode(document, "here")


def test_a_run_of_format_0_is_read(tmp_path: Path) -> None:
    store = storage.open(tmp_path.as_uri())
    run = runs.Run("iris", "0123456789ab", store.uri)
    store.put("runs/iris/0123456789ab/search.json", b'"ba9876543210"')
    assert runs.find(run, runs.Begun) == runs.Begun(search="ba9876543210")
    store.put("runs/iris/0123456789ab/result.json", b'{"summary": {"version": 1}, "page": "x"}')
    assert runs.find(run, runs.Result) == runs.Result(summary={"version": 1}, page="x")


def test_every_document_says_what_it_is_and_who_wrote_it(tmp_path: Path) -> None:
    store = storage.open(tmp_path.as_uri())
    records = searches.Records(store, "iris", "0123456789ab")
    lease = records.watcher().acquire()
    assert lease is not None
    owned = searches.Records(store, "iris", "0123456789ab", lease)
    owned.adopt()
    owned.save(searches.Record(number=1, values={}))
    registry = Registry(store)
    for _ in range(2):
        registry.register("iris", {}, {})
    registry.promote("iris", 1)
    registry.promote("iris", 2)
    written = {one.key: json.loads(store.get(one.key)) for one in store.list()}
    kinds = {one["kind"] for one in written.values()}
    assert kinds == {"lease", "fence", "trial", "version", "aliases", "event"}
    assert {one["format"] for one in written.values()} == {1, searches.Record.FORMAT}
    assert {one["written_by"] for one in written.values()} == {eagleray.__version__}


def test_moving_an_alias_keeps_what_a_newer_release_has_added(tmp_path: Path) -> None:
    store = storage.open(tmp_path.as_uri())
    registry = Registry(store)
    for _ in range(2):
        registry.register("iris", {}, {})
    store.put("models/iris/aliases.json", b'{"values": {"champion": 1}, "route": {"weight": 5}}')
    registry.promote("iris", 2)
    registry.rollback("iris")
    assert json.loads(store.get("models/iris/aliases.json"))["route"] == {"weight": 5}


def test_a_sweep_knows_every_kind_of_document() -> None:
    groups = (documents.Document, documents.Replaceable)
    known = {one for group in groups for one in group.__subclasses__()} - {*groups}
    ours = {one for one in known if one.__module__.startswith("eagleray.")}
    assert ours == set(sweep.DOCUMENTS.values())
