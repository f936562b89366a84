"""Runs as storage knows them."""

import time
from pathlib import Path

import pytest

from eagleray import cli, errors, process, storage
from eagleray.client import local, runs
from eagleray.state import leases, searches


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A storage with a search of three trials, one of them under way."""
    found = f"file://{tmp_path}"
    kept = searches.Records(storage.open(found), "wine", "0123456789ab")
    kept.save(searches.Record(number=1, values={}, status="finished", epoch=9, score=0.5))
    kept.save(searches.Record(number=2, values={}, status="failed", failure="loss is NaN"))
    kept.save(searches.Record(number=3, values={}))
    return found


def end(uri: str) -> None:
    result = searches.Result(version=4, winner=1, metric="log_loss", test={"log_loss": 0.4})
    searches.Records(storage.open(uri), "wine", "0123456789ab").save(result)


def test_a_search_is_unfinished_until_it_has_a_result(uri: str) -> None:
    backend = local.LocalRuns(uri)
    assert [one.state for one in backend.attempts()] == ["unfinished"]
    end(uri)
    found = runs.find(backend, "wine")
    assert (found.state, found.why) == ("succeeded", "version 4, from trial 1")


def test_the_log_has_a_line_for_each_trial_that_has_ended(uri: str) -> None:
    backend = local.LocalRuns(uri)
    lines = list(backend.log(runs.find(backend, "wine"), follow=False))
    assert lines == [
        "trial 1 finished after 9 epochs 0.5000\n",
        "trial 2 failed after 0 epochs: loss is NaN\n",
    ]


def test_followed_it_ends_with_the_result(uri: str) -> None:
    backend = local.LocalRuns(uri)
    end(uri)
    assert len(list(backend.log(runs.find(backend, "wine"), follow=True))) == 2


def show(uri: str, at: float) -> None:
    seen = searches.View(
        at=at,
        gone=5,
        metric="accuracy",
        epochs=9,
        total=4,
        started=3,
        ended=2,
        best=None,
        rows=[],
    )
    searches.Records(storage.open(uri), "wine", "0123456789ab").save(seen)


def take(uri: str) -> leases.Lease:
    lease = searches.Records(storage.open(uri), "wine", "0123456789ab").watcher().acquire()
    assert lease is not None
    return lease


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life ten times as often, and missed as soon."""
    monkeypatch.setattr(leases, "ALIVE_S", 0.5)
    monkeypatch.setattr(leases, "_POLL_S", 0.05)
    monkeypatch.setattr(leases, "TTL_S", 0.5)
    monkeypatch.setattr(local, "ABANDONED_S", 0.1)
    monkeypatch.setattr(local, "POLL_S", 0.1)


@pytest.mark.usefixtures("soon")
def test_a_search_is_running_while_its_lease_changes_whatever_its_drivers_clock_says(
    uri: str,
) -> None:
    lease = take(uri)
    show(uri, time.time() - 1e6)
    with process.beating(0.1, lease.beat):
        assert [one.state for one in local.LocalRuns(uri).attempts()] == ["running"]
    show(uri, time.time() + 1e6)
    (lost,) = local.LocalRuns(uri).attempts()
    assert lost.state == "unfinished"
    assert lost.why.startswith("last seen 20")


def test_a_search_that_was_left_is_unfinished_at_once(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases.time, "sleep", lambda _: pytest.fail("nothing is to be waited for"))
    show(uri, time.time())
    take(uri).release()
    assert [one.state for one in local.LocalRuns(uri).attempts()] == ["unfinished"]


@pytest.mark.usefixtures("soon")
def test_who_follows_a_search_whose_driver_is_gone_is_told(uri: str) -> None:
    backend = local.LocalRuns(uri)
    attempt = runs.find(backend, "wine")
    with pytest.raises(errors.ClusterError, match="no driver process; the same"):
        list(backend.log(attempt, follow=True))
    take(uri)
    with pytest.raises(
        errors.ClusterError, match=r"driver .*:\d+ has been silent for .* s; the same"
    ):
        list(backend.log(attempt, follow=True))


def test_it_is_stopped_only_where_it_runs(uri: str) -> None:
    backend = local.LocalRuns(uri)
    with pytest.raises(errors.UserError, match="must be stopped where it runs"):
        backend.stop(runs.find(backend, "wine"))


def test_the_command_line_lists_it(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "list", "--storage", uri]) == 0
    assert "0123456789ab  wine        unfinished" in capsys.readouterr().out
    assert cli.main(["runs", "status", "beer", "--storage", uri]) == 2
    assert "no run is called 'beer'" in capsys.readouterr().err
