"""A trial in its actor, called as Ray Tune calls it; data come without Ray's object store."""

import contextlib
import dataclasses
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eagleray import spec, storage
from eagleray.state import searches
from ray_jobs import checkpoints, search, session, trial
from ray_jobs.data import encoded

EPOCHS = 6
FILE = """
name: wine
data: {{source: 'dataset:wine', target: target}}
model: {{hidden: [16], dropout: 0.0}}
train: {{lr: {{loguniform: [1.0e-3, 1.0e-1]}}, epochs: {epochs}, batch_size: 1000}}
tune: {{metric: log_loss, scheduler: none}}
storage: file://{folder}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[session.Job]:
    with in_process(monkeypatch):
        found = searched(tmp_path, FILE)
        data = found.dataset.encode(found.transforms(found.experiment.default()))
        yield job_of(found, shared={encoded.key({}): data})


@contextlib.contextmanager
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let trials run in this process, which report and save at each chance."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(session.ray, "get", lambda held: held)
    monkeypatch.setattr(checkpoints, "FIRST_S", 0.0)
    monkeypatch.setattr(checkpoints, "UPLOAD_RATIO", 0)
    monkeypatch.setattr(session, "REPORT_S", 0.0)
    yield
    signal.signal(signal.SIGTERM, handler)


def searched(folder: Path, file: str, epochs: int = EPOCHS) -> search.Search:
    """The search of an experiment file such as `FILE`."""
    (folder / "storage").mkdir()
    (folder / "x.yaml").write_text(file.format(epochs=epochs, folder=folder / "storage"))
    return search.Search(spec.load(folder / "x.yaml"))


def job_of(found: search.Search, **fields: Any) -> session.Job:
    known: dict[str, Any] = {
        "rungs": frozenset(),
        "shared": {},
        "dataset": found.dataset,
        **fields,
    }
    return session.Job(
        experiment=found.experiment,
        search_id=found.id,
        metric=found.metric,
        population=False,
        custom={},
        **known,
    )


def actor(job: session.Job, *rates: float, in_turn: bool = False) -> trial.Trial:
    made = trial.Trial.__new__(trial.Trial)
    members = [
        {"number": number, "values": {"train.lr": rate}, "parameters": {}}
        for number, rate in enumerate(rates, 1)
    ]
    made.setup({"members": members, "in_turn": in_turn}, job=job)
    return made


def records(job: session.Job) -> searches.Records:
    opened = storage.open(job.experiment.storage)
    return searches.Records(opened, job.experiment.name, job.search_id)


def finish(running: trial.Trial) -> dict[int, list[dict[str, Any]]]:
    """The reports of each member, to the end."""
    reports: dict[int, list[dict[str, Any]]] = {}
    while True:
        result = running.step()
        for report in result["members"]:
            reports.setdefault(report["number"], []).append(report)
        if result["done"]:
            return reports


def uploaded(running: trial.Trial) -> None:
    """Wait until what was to be uploaded is there."""
    held = running._trains
    assert isinstance(held, session.Session)
    assert all(one.saved.flush(10) for one in held._members)


def epochs(reports: list[dict[str, Any]]) -> int:
    return sum(len(report["history"]) for report in reports)


def test_the_process_of_a_trial_of_one_worker_does_not_import_what_groups_need() -> None:
    groups = {"ray.train.torch", "torch.distributed.fsdp", "torch.distributed.tensor"}
    script = f"import sys, ray_jobs.trial; print(sorted({groups} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stdout.strip() == "[]", ended.stderr


def test_every_member_is_reported_to_its_end(job: session.Job) -> None:
    reports = finish(actor(job, 0.01, 0.02, 0.03))
    for found in reports.values():
        assert epochs(found) == EPOCHS
        assert [report["done"] for report in found] == [False] * (len(found) - 1) + [True]
        assert found[-1]["weights"]


def test_what_is_watched_of_layers_is_reported_once(job: session.Job) -> None:
    reports = finish(actor(job, 0.01, 0.02))
    for found in reports.values():
        rows = [row for report in found for row in report["layers"]]
        assert [row.epoch for row in rows] == [1, 1, EPOCHS, EPOCHS]
        assert {row.layer for row in rows} == {"head.0", "head.3"}


def test_weights_that_cannot_win_are_not_uploaded(job: session.Job) -> None:
    reports = finish(actor(job, *(0.001 * 2**number for number in range(7))))
    ends = {number: found[-1] for number, found in reports.items()}
    best = sorted(ends, key=lambda n: ends[n]["score"], reverse=job.metric != "log_loss")[:5]
    assert {n for n, end in ends.items() if end["weights"]} >= set(best)
    assert len(best) < len(ends) == sum(end["weights_epoch"] > 0 for end in ends.values())
    assert sum(not end["weights"] for end in ends.values()) > 0


def test_a_member_that_the_scheduler_drops_is_trained_and_reported_no_further(
    job: session.Job,
) -> None:
    running = actor(job, 0.01, 0.02, 0.03)
    first = running.step()
    assert [one["number"] for one in first["members"]] == [1, 2, 3]
    running.drop([2])
    assert sorted(finish(running)) == [1, 3]


def test_a_member_whose_loss_explodes_fails_alone(job: session.Job) -> None:
    reports = finish(actor(job, 0.01, 1e38, 0.03))
    assert [report["status"] for report in reports[2]] == ["failed"]
    assert "must be finite" in reports[2][0]["failure"]
    assert epochs(reports[1]) == epochs(reports[3]) == EPOCHS


def test_after_the_loss_of_its_worker_a_pack_goes_on_without_those_that_had_ended(
    job: session.Job,
) -> None:
    lost = actor(job, 0.01, 0.02, 0.03)
    for _ in range(3):
        lost.step()
        uploaded(lost)
    values = {"train.lr": 0.02}
    records(job).save(searches.Record(number=2, values=values, status="stopped"))
    reports = finish(actor(job, 0.01, 0.02, 0.03))
    assert sorted(reports) == [1, 3]
    assert all(len(found[0]["history"]) > 1 for found in reports.values())  # of its saved state
    alone = finish(actor(job, 0.01))[1]
    assert reports[1][-1]["score"] == pytest.approx(alone[-1]["score"], rel=1e-5)


def test_members_in_turn_become_what_they_become_alone_to_the_bit(
    job: session.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = actor(job, 0.01, 0.02, 0.03, in_turn=True)
    assert len(together.step()["members"][0]["history"]) == 1  # after each epoch, see `job`
    monkeypatch.setattr(session, "REPORT_S", 60.0)
    rest = together.step()  # of which the ends are no reason to report
    assert [len(one["history"]) for one in rest["members"]] == [EPOCHS - 1, EPOCHS, EPOCHS]
    assert rest["done"]
    for one, rate in zip(rest["members"], (0.01, 0.02, 0.03), strict=True):
        alone = finish(actor(job, rate))[1][-1]
        assert (one["score"], one["best_epoch"]) == (alone["score"], alone["best_epoch"])


def test_members_in_turn_go_on_from_the_one_in_training(job: session.Job) -> None:
    lost = actor(job, 0.01, 0.02, in_turn=True)
    for _ in range(EPOCHS + 2):
        lost.step()
        uploaded(lost)
    assert [number for number in (1, 2) if records(job).state(number, {}, other=True).checkpoints]
    reports = finish(actor(job, 0.01, 0.02, in_turn=True))
    assert len(reports[2][0]["history"]) > 1  # of its saved state
    assert epochs(reports[1]) == epochs(reports[2]) == EPOCHS


def test_members_that_are_behind_catch_up_first(job: session.Job) -> None:
    ahead = actor(job, 0.01)
    for _ in range(2):
        ahead.step()
        uploaded(ahead)
    running = actor(job, 0.01, 0.02)
    assert [one["epoch"] for one in running.step()["members"]] == [2, 1]
    reports = finish(running)
    assert reports[1][-1]["epoch"] == reports[2][-1]["epoch"] == EPOCHS


def test_what_cannot_be_trained_in_one_pass_is_trained_one_by_one(
    job: session.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(trainers: object) -> None:
        raise RuntimeError("torch cannot batch this")

    monkeypatch.setattr(session.pack, "epoch", broken)
    reports = finish(actor(job, 0.01, 0.02))
    assert [epochs(found) for found in reports.values()] == [EPOCHS, EPOCHS]


def test_members_with_batch_norm_are_trained_alone_whoever_put_them_together(
    job: session.Job,
) -> None:
    chosen = spec.load(job.experiment.path, {"model.batch_norm": "true"})
    population = dataclasses.replace(job, experiment=chosen, population=True)
    together = finish(actor(population, 0.01, 0.02))[1]
    alone = finish(actor(dataclasses.replace(population, search_id="another"), 0.01))[1]
    assert [one["score"] for one in together] == [one["score"] for one in alone]
