"""A search on the screen, near the driver and far from it."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from eagleray import errors, spec, storage
from eagleray.client import screen
from eagleray.client.runs import Attempt
from eagleray.state import runs, searches
from ray_jobs import search
from ray_jobs.report import live

TERMINAL = {"force_terminal": True, "width": 100, "highlight": False}


@pytest.fixture
def searched(tmp_path: Path) -> search.Search:
    file = tmp_path / "wine.yaml"
    file.write_text(
        "name: wine\ndata: {source: 'dataset:wine', target: target}\n"
        "train: {epochs: 9, lr: {loguniform: [0.01, 1.0]}}\ntune: {trials: 4, metric: accuracy}\n"
        f"storage: file://{tmp_path}/storage\n"
    )
    (tmp_path / "storage").mkdir()
    return search.Search(spec.load(file))


def record(number: int, **facts: object) -> searches.Record:
    return searches.Record(number=number, values={"train.lr": 0.1}, **facts)


def view(searched: search.Search) -> searches.View:
    """Three trials of four: two ended, the second the better one, and one under way."""
    trials = [
        record(1, status="finished", epoch=9, score=0.5),
        record(2, status="stopped", epoch=3, score=0.75),
        record(3, epoch=4),
    ]
    return live.view(searched, trials, trials[2:], seconds=0.0, before=0)


def test_what_runs_stands_above_the_best(searched: search.Search) -> None:
    shown = view(searched)
    assert [row.number for row in shown.rows] == [3, 2, 1]
    assert shown.best is not None
    assert shown.best.number == 2
    line = screen.headline(shown)
    assert line.startswith("2/4 trials, best accuracy 0.7500 (trial 2), 0:00 gone, about ")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_search_that_goes_on_begins_with_what_it_had(
    searched: search.Search, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """Two of four trials are done; the time that is left is told from this run alone."""
    seen: list[searches.View] = []
    monkeypatch.setattr(live, "PUBLISH_S", 0.02)
    said = Console(file=io.StringIO(), **TERMINAL) if terminal else Console(file=io.StringIO())
    known = [
        record(1, status="finished", epoch=9, score=0.5),
        record(2, status="stopped", epoch=3, score=0.75),
        record(3, status="lost", epoch=4, score=0.625),
    ]
    monkeypatch.setattr(searched.records, "save", seen.append)
    with live.watch(searched, {one.number: one for one in known}, said):
        until = time.monotonic() + 20
        while not (seen and seen[-1].started) and time.monotonic() < until:
            time.sleep(0.01)
    assert isinstance(said.file, io.StringIO)
    assert "resuming: 2 of 4 trials done, best 0.75\n" in said.file.getvalue()
    line = screen.headline(seen[-1].model_copy(update={"gone": 60.0}))
    assert line == "2/4 trials, best accuracy 0.7500 (trial 2), 1:00 gone"
    ended = seen[-1].model_copy(update={"gone": 60.0, "ended": 3})
    assert screen.headline(ended).endswith("1:00 gone, about 1:00 left")


def test_lines_are_printed_where_there_is_no_terminal(searched: search.Search) -> None:
    said = io.StringIO()
    trials = {1: record(1, status="failed", failure="loss is NaN")}
    with live.watch(searched, trials, Console(file=said)) as ended:
        ended(trials[1])
    assert (
        said.getvalue()
        .splitlines()[1]
        .startswith("trial 1 failed after 0 epochs: loss is NaN  [1/4 trials")
    )


def test_a_failure_with_brackets_is_printed_as_it_is(searched: search.Search) -> None:
    out, why = Console(file=io.StringIO(), width=200), "worker 0: [/gloo/tcp/pair.cc:537] closed"
    failed = record(1, status="failed", failure=why, epoch=2)
    with live.watch(searched, {1: failed}, out) as ended:
        ended(failed)
    assert why in out.file.getvalue()  # type: ignore[attr-defined]


def test_the_view_is_published_while_the_search_runs_and_storage_may_fail(
    searched: search.Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PUBLISH_S", 0.02)
    seen: list[searches.View] = []

    def publish(view: searches.View) -> None:
        seen.append(view)
        raise errors.StorageError("the disk is full")

    monkeypatch.setattr(searched.records, "save", publish)
    trials: dict[int, searches.Record] = {}
    with live.watch(searched, trials, Console(file=io.StringIO())):
        trials[1] = record(1, epoch=2)
        until = time.monotonic() + 10
        while len(seen) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert seen[-1].rows[0].epoch == 2
    assert len(seen) >= 3


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_terminal_far_away_draws_the_same_table_below_the_log(
    searched: search.Search, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    monkeypatch.setattr(screen, "POLL_S", 0.05)
    run = runs.Run(
        "wine", "ba9876543210" if elsewhere else "0123456789ab", searched.experiment.storage
    )
    searches.Records(storage.open(run.storage), "wine", "0123456789ab").save(view(searched))
    if elsewhere:
        runs.put(run, runs.Begun(search="0123456789ab"))
    attempt = Attempt("wine-1", run.name, run.id, 1, "running", storage=run.storage)
    said = io.StringIO()

    def pieces() -> Iterator[str]:
        yield from ("trial 1 fin", "ished\n")
        until = time.monotonic() + 20
        while "2/4 trials" not in said.getvalue() and time.monotonic() < until:
            time.sleep(0.05)

    screen.print_log(pieces(), attempt, Console(file=said, **TERMINAL))
    assert "trial 1 finished\n" in said.getvalue()
    assert "2/4 trials, best accuracy 0.7500 (trial 2)" in said.getvalue()
    assert "4/9" in said.getvalue()


def test_without_a_terminal_the_log_passes_as_it_comes(searched: search.Search) -> None:
    attempt = Attempt("wine-1", "wine", "0123456789ab", 1, "running")
    said = io.StringIO()
    screen.print_log(["half a li", "ne\n[brackets] stay\n"], attempt, Console(file=said))
    assert said.getvalue() == "half a line\n[brackets] stay\n"


def test_storage_out_of_reach_means_no_table(tmp_path: Path) -> None:
    attempt = Attempt("wine-1", "wine", "0123456789ab", 1, "running", storage="s3://no/where")
    assert screen.view(attempt) is None
    assert screen.view(Attempt("wine-1", "wine", "0123456789ab", 1, "running")) is None
