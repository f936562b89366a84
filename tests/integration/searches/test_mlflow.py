"""Searches that are sent to a real MLflow server while they run, and later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eagleray import cli, errors, storage
from eagleray.client import tracking
from eagleray.state import searches
from ray_jobs import pipeline
from tests import mlflow_server, ray_nodes
from tests.integration.searches import test_search

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from eagleray import spec
    from ray_jobs.report.outcome import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture
def client(address: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    from mlflow import MlflowClient

    monkeypatch.setenv(tracking.URI, address)
    return MlflowClient(address)


def experiment(folder: Path, name: str, **overrides: str) -> spec.Experiment:
    text = test_search.FILE.replace("name: wine", f"name: {name}")
    return test_search.experiment(folder, text, **{"tune.scheduler": "none", **overrides})


def runs(client: MlflowClient, name: str) -> tuple[list[Run], dict[int, Run]]:
    """The runs of the searches of a name, and those of their trials by number."""
    found = client.get_experiment_by_name(name)
    assert found is not None
    known = client.search_runs([found.experiment_id])
    trials = {int(one.data.tags[tracking.TRIAL]): one for one in known if _trial(one)}
    return [one for one in known if not _trial(one)], trials


def send(ended: Outcome, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    storage = ended.search.experiment.storage
    assert cli.main(["runs", "mlflow", ended.search.id, "--storage", storage]) == 0
    return capsys.readouterr().out


def test_a_search_that_goes_on_is_one_run_with_a_run_for_each_trial_and_its_winner_marked(
    ray_cluster: None, client: MlflowClient, tmp_path: Path
) -> None:
    pipeline.run(experiment(tmp_path, "followed", **{"tune.trials": "2"}), test_search.quiet())
    chosen = experiment(tmp_path, "followed", **{"tune.trials": "3"})
    ended = pipeline.run(chosen, test_search.quiet())
    [search], trials = runs(client, "followed")
    assert search.data.tags[tracking.SEARCH] == ended.search.id
    assert search.data.tags[tracking.VERSION] == str(ended.result.version)
    assert search.info.status == "FINISHED"
    assert search.data.metrics["test/accuracy"] == ended.result.test["accuracy"]
    winner = trials[ended.result.winner]
    assert winner.data.tags[tracking.VERSION] == str(ended.result.version)
    assert trials.keys() == {1, 2, 3}
    for record in ended.trials:
        run = trials[record.number]
        assert run.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert run.info.status == "FINISHED"
        assert run.data.params["train.lr"] == str(record.values["train.lr"])
        curve = client.get_metric_history(run.info.run_id, "log_loss")
        assert [(one.step, one.value) for one in curve] == [
            (epoch, metrics["log_loss"]) for epoch, metrics in enumerate(record.history, 1)
        ]


def test_what_mlflow_lacks_is_sent_later_and_only_that(
    ray_cluster: None,
    client: MlflowClient,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = test_search.quiet()
    monkeypatch.setenv(tracking.URI, f"http://127.0.0.1:{ray_nodes.free_port()}")
    chosen = experiment(tmp_path, "unfollowed", **{"tune.trials": "2"})
    ended = pipeline.run(chosen, out)
    assert out.file.getvalue().count("the search goes on; send it later") == 1  # type: ignore[attr-defined]
    monkeypatch.setenv(tracking.URI, address)
    assert send(ended, capsys).startswith("2 of 2 trials of unfollowed sent: http://127.0.0.1:")
    assert send(ended, capsys).startswith("0 of 2 trials")
    [search], trials = runs(client, "unfollowed")
    assert search.info.status == "FINISHED"
    client.delete_run(trials[1].info.run_id)
    assert send(ended, capsys).startswith("1 of 2 trials")
    assert runs(client, "unfollowed")[1].keys() == {1, 2}


def test_a_run_that_is_deleted_meanwhile_is_made_again(
    client: MlflowClient, address: str, tmp_path: Path
) -> None:
    trial = searches.Record(number=1, values={"train.lr": 0.1}, history=[{"loss": 2.0}])
    records = searches.Records(storage.open(tmp_path.as_uri()), "deleted", "ab0123456789")
    tracker = tracking.Tracker(records, address)
    tracker.send([trial])
    client.delete_run(runs(client, "deleted")[1][1].info.run_id)
    trial.history = [*trial.history, {"loss": 1.0}]
    with pytest.raises(errors.TrackingError, match="must be in the 'active' state"):
        tracker.send([trial])
    assert tracker.send([trial]) == 1
    curve = client.get_metric_history(runs(client, "deleted")[1][1].info.run_id, "loss")
    assert [one.value for one in curve] == [2.0, 1.0]
    for status in ("KILLED", "RUNNING"):
        tracker.send([trial], status=status)
        [search], trials = runs(client, "deleted")
        assert (search.info.status, trials[1].info.status) == (status, status)


def _trial(run: Run) -> bool:
    return tracking.TRIAL in run.data.tags
