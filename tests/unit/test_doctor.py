"""What `eagleray doctor` makes of clocks, versions, storage and this machine."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from eagleray import doctor, errors, machine, storage
from eagleray.doctor import Versions
from eagleray.findings import Finding

MINE = Versions("2.60.0", "3.11.7")


@pytest.mark.parametrize(
    ("ahead_s", "state", "said"),
    [
        (None, "skip", "gives no time"),
        (0.4, "pass", "agree within 5 s"),
        (-4.9, "pass", "agree within 5 s"),
        (5.0, "warn", "is 5 s ahead of this machine"),
        (-899.0, "warn", "is 899 s behind"),
        (900.0, "fail", "signatures are refused from 900 s"),
    ],
)
def test_a_clock_is_judged_by_how_far_it_is_from_ours(
    ahead_s: float | None, state: str, said: str
) -> None:
    found = doctor.clock(ahead_s, "the server")
    assert found.severity == state
    assert said in found.message
    assert bool(found.fix) == (state in ("warn", "fail"))


def test_a_date_has_whole_seconds_and_was_said_between_question_and_answer() -> None:
    said = doctor.parse_date("Sun, 22 Nov 2026 03:00:10 GMT")
    now = datetime.datetime(2026, 11, 22, 3, 0, 0, tzinfo=datetime.UTC).timestamp()
    assert doctor.clock_offset(said, now - 1, now + 1) == pytest.approx(10.5)
    assert doctor.parse_date("yesterday") is doctor.parse_date(None) is None


@pytest.mark.parametrize(
    ("theirs", "states"),
    [
        (Versions("2.60.0", "3.11.14"), ["pass", "pass"]),
        (Versions("2.59.0", "3.11.7"), ["fail", "pass"]),
        (Versions("2.60.0", "3.12.1"), ["pass", "fail"]),
        (Versions(), ["warn", "warn"]),
    ],
)
def test_ray_is_to_be_the_same_and_python_to_the_minor_version(
    theirs: Versions, states: list[str]
) -> None:
    found = doctor.versions(MINE, theirs, "head", "upgrade it")
    assert [one.severity for one in found] == states
    assert all(one.fix == "upgrade it" for one in found if one.severity != "pass")


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (machine.python("3.11.7", "<3.13,>=3.11"), "pass"),
        (machine.python("3.14.0", "<3.13,>=3.11"), "fail"),
        (machine.ray("2.60.0", ["typer>=0.16", "ray[serve,tune]==2.60.0"]), "pass"),
        (machine.ray("2.59.1", ["ray[serve,tune]==2.60.0"]), "fail"),
        (machine.room("/tmp", total=100 << 30, free=6 << 30, reserve=0.05), "pass"),
        (machine.room("/tmp", total=100 << 30, free=4 << 30, reserve=0.05), "fail"),
        (machine.memory(16 << 30, 8 << 30), "pass"),
        (machine.memory(16 << 30, (16 << 30) - 1), "warn"),
        (machine.shared_memory(5 << 30, 16 << 30), "pass"),
        (machine.shared_memory(64 << 20, 16 << 30), "warn"),  # docker's default
    ],
)
def test_this_machine_is_judged_by_rays_laws(finding: Finding, state: str) -> None:
    assert finding.severity == state
    assert bool(finding.fix) == (state != "pass")


def test_the_fix_of_storage_depends_on_what_it_said(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    first, *rest = doctor.check_storage(absent.as_uri())
    assert (first.severity, first.fix) == ("fail", f"mkdir -p {absent}")
    assert [one.severity for one in rest] == ["skip", "skip"]
    wrong = doctor.check_storage("http://bucket")
    assert (wrong[0].severity, wrong[0].message[:28]) == ("fail", "storage: must be s3://bucket")


class Lax:
    """A storage that takes conditions for decoration, as some S3 servers do."""

    def __init__(self, inner: storage.Storage, *ignored: str) -> None:
        self._inner, self._ignored = inner, ignored

    def __getattr__(self, name: str) -> Any:
        if name not in self._ignored:
            return getattr(self._inner, name)
        return lambda key, data, *etag: self._inner.put(key, data)


@pytest.mark.parametrize("ignored", ["put_if_absent", "compare_and_swap"])
def test_a_store_that_ignores_conditions_fails_and_is_left_clean(
    tmp_path: Path, ignored: str
) -> None:
    inner = storage.open(tmp_path.as_uri())
    reach, conditional = doctor.probe(Lax(inner, ignored))  # type: ignore[arg-type]
    assert (reach.severity, conditional.severity) == ("pass", "fail")
    assert ignored.replace("_", "-") in conditional.message
    assert list(inner.list()) == []


def test_a_refusal_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    class Refusing(Lax):
        def compare_and_swap(self, key: str, data: bytes, etag: str) -> str:
            raise errors.StorageError("501 NotImplemented")

    inner = storage.open(tmp_path.as_uri())
    found = doctor.probe(Refusing(inner))  # type: ignore[arg-type]
    assert [one.severity for one in found] == ["fail", "skip"]
    assert list(inner.list()) == []
