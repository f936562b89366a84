"""A search in MLflow: a run for the search, and nested in it a run for each of its trials.

What MLflow has already is found by tags, so that a search may be sent again and again.
https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import errors, messages, process
from eagleray.state.searches import Record, Records, Result

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

URI = "MLFLOW_TRACKING_URI"
PASSED = (URI, "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
"""Variables that lead MLflow's client to its server; none names a file."""
SEARCH, TRIAL = "eagleray.search", "eagleray.trial"
STATUS, EPOCHS, VERSION = "eagleray.status", "eagleray.epochs", "eagleray.version"
"""Tags; `EPOCHS` counts those whose metrics are there."""
FAILURE, VALUES = "eagleray.failure", "eagleray.values"
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Settings of MLflow's client where the environment has none: by default it tries for minutes."""
LAST = 800
"""Metrics sent beside tags in one request, which takes 1000."""
_STATUSES = {"failed": "FAILED", "lost": "KILLED", "interrupted": "KILLED"}
"""MLflow's words for a trial that does not run; for any other, FINISHED."""
_FOREIGN = re.compile(r"[^\w.: -]")


@dataclass
class _Sent:
    """A trial's run in MLflow, and what of the trial is there."""

    run: str
    start_ms: int
    status: str = ""
    epochs: int = 0


def send(records: Records, state: str) -> tuple[int, int, str]:
    """Send a search on record, whose run is in `state`; return what was sent, of how many, where.

    Raises:
        TrackingError: MLflow does not answer, or refuses.
        UserError: nobody says where MLflow is.
    """
    if not (uri := os.environ.get(URI)):
        raise errors.UserError(f"{URI}: must be set, such as http://mlflow:5000, but is not")
    tracker, trials, result = Tracker(records, uri), records.trials(), records.result()
    status = "FINISHED" if result else "RUNNING" if state == "running" else "KILLED"
    return tracker.send(trials, status=status, result=result), len(trials), tracker.url


class Tracker:
    """Sends one search to the MLflow at `uri`.

    Attributes:
        url: where people see the search; empty before the first `send`, and after one that failed.
    """

    def __init__(self, records: Records, uri: str) -> None:
        self.uri, self.url = uri, ""
        self._name, self._search = records.name, records.search_id
        self._trials: dict[int, _Sent] = {}  # by number
        self._experiment = self._run = self._version = self._status = ""

    def send(
        self, trials: Sequence[Record], *, status: str = "RUNNING", result: Result | None = None
    ) -> int:
        """Send what MLflow lacks of these trials; return the number of those it lacked.

        `status` is the search's, in MLflow's words: RUNNING, FINISHED, FAILED or KILLED.

        Raises:
            TrackingError: MLflow does not answer, or refuses; the next call sends the rest.
        """
        with self._client() as client:
            if not self.url:
                self._open(client)
            runs = status == "RUNNING"
            sent = sum(self._send(client, one, runs=runs) for one in trials)
            if result is not None and self._version != str(result.version):
                self._mark(client, result)
            if status != self._status:
                set_status = client.update_run if status == "RUNNING" else client.set_terminated
                set_status(self._run, status)
                self._status = status
            return sent

    def _open(self, client: MlflowClient) -> None:
        """Find the search's runs, or make the first one."""
        found = client.get_experiment_by_name(self._name)
        experiment = found.experiment_id if found else client.create_experiment(self._name)
        runs = list(_runs(client, experiment, self._search))
        for one in runs:
            if TRIAL in one.data.tags:
                self._trials[int(one.data.tags[TRIAL])] = _known(one)
        parents = [one for one in runs if TRIAL not in one.data.tags]
        parent = min(parents, key=lambda one: one.info.start_time, default=None)
        if parent is None:
            name = f"search {self._search}"
            parent = client.create_run(experiment, tags={SEARCH: self._search}, run_name=name)
        self._experiment, self._run = experiment, parent.info.run_id
        self._version, self._status = parent.data.tags.get(VERSION, ""), parent.info.status
        self.url = f"{self.uri.rstrip('/')}/#/experiments/{experiment}/runs/{self._run}"

    def _send(self, client: MlflowClient, record: Record, *, runs: bool) -> bool:
        """Send what is new of a trial; whether there was something. `runs`: its search does."""
        known = self._trials.get(record.number)
        record = record.model_copy()  # the driver goes on changing it
        state = "interrupted" if record.status == "running" and not runs else record.status
        if known and (known.status, known.epochs) == (state, len(record.history)):
            return False
        known, history = known or self._create(client, record), list(record.history)
        if state != "running":
            status = _STATUSES.get(state, "FINISHED")
            client.set_terminated(known.run, status, known.start_ms + int(record.seconds * 1000))
        elif known.status not in ("", "running"):
            client.update_run(known.run, "RUNNING")
        tags = {STATUS: state, EPOCHS: str(len(history)), VALUES: json.dumps(record.values)}
        if record.failure or known.status == "lost":
            tags[FAILURE] = record.failure or ""
        values = {} if known.status else record.values  # MLflow refuses other ones
        _log(client, known.run, _news(record, history, known), tags, values)
        known.status, known.epochs = state, len(history)
        return True

    def _create(self, client: MlflowClient, record: Record) -> _Sent:
        start_ms = int((time.time() - record.seconds) * 1000)
        tags = {SEARCH: self._search, TRIAL: str(record.number), "mlflow.parentRunId": self._run}
        name = f"trial {record.number}"
        made = client.create_run(self._experiment, start_time=start_ms, tags=tags, run_name=name)
        known = self._trials[record.number] = _Sent(made.info.run_id, start_ms)
        return known

    def _mark(self, client: MlflowClient, result: Result) -> None:
        """Mark the winner and the search with the version that came of them."""
        winner, version = self._trials[result.winner], str(result.version)
        test = {f"test/{name}": value for name, value in result.test.items()}
        for run in (winner.run, self._run):
            _log(client, run, _metrics(test, winner.start_ms, 0), {VERSION: version})
        self._version = version

    @contextlib.contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        settings = {name: os.environ.get(name, value) for name, value in SETTINGS.items()}
        with process.variables(settings):
            try:
                from mlflow import MlflowClient, exceptions
            except ImportError as cause:
                law = "needs MLflow's client: pip install 'eagleray[mlflow]'"
                raise errors.TrackingError(f"{URI}: {law}") from cause
            try:
                yield MlflowClient(self.uri)
            except (exceptions.MlflowException, OSError, ImportError) as cause:
                # it may have been carried out, or a run was deleted: all is looked up again
                self.url, self._trials = "", {}
                law = f"{URI}: must be an MLflow that answers, but {self.uri}: {_reason(cause)}"
                raise errors.TrackingError(law) from cause


def _reason(failure: BaseException) -> str:
    """Why a request failed, in a line: MLflow wraps the error of the connection several times."""
    deepest = failure
    while (inner := deepest.__cause__ or deepest.__context__) is not None:
        deepest = inner
    text = str(deepest if isinstance(deepest, OSError) else failure)
    return messages.shortened(" ".join(text.split()), 160)


def _runs(client: MlflowClient, experiment: str, search: str) -> Iterator[Run]:
    page = None
    while page != "":
        wanted = f"tags.`{SEARCH}` = '{search}'"
        found = client.search_runs([experiment], wanted, max_results=1000, page_token=page)
        yield from found
        page = found.token or ""


def _known(run: Run) -> _Sent:
    tags = run.data.tags
    epochs = int(tags.get(EPOCHS, 0))
    return _Sent(run.info.run_id, run.info.start_time, tags.get(STATUS, ""), epochs)


def _news(record: Record, history: Sequence[Mapping[str, float]], known: _Sent) -> list[Metric]:
    """The metrics of epochs that are not there, at the times at which they ended; then the best."""
    found, seconds = list[Any](), 0.0
    for epoch, metrics in enumerate(history, 1):
        seconds += metrics.get("seconds", 0.0)
        if epoch > known.epochs:
            found += _metrics(metrics, known.start_ms + int(seconds * 1000), epoch)
    if record.status != "running":
        best = {f"best/{name}": value for name, value in record.best.items()}
        found += _metrics(best, known.start_ms, record.best_epoch)
    return found


def _metrics(values: Mapping[str, float], at_ms: int, step: int) -> list[Metric]:
    from mlflow.entities import Metric

    return [
        Metric("/".join(map(_key, name.split("/"))), value, at_ms, step)
        for name, value in values.items()
    ]


def _log(
    client: MlflowClient,
    run: str,
    metrics: list[Metric],
    tags: Mapping[str, str],
    values: Mapping[str, Any] | None = None,
) -> None:
    """Write metrics and values, and last the tags, which say that these are there."""
    from mlflow.entities import Param, RunTag

    parameters = [Param(_key(key), _text(value)) for key, value in (values or {}).items()]
    client.log_batch(run, metrics[:-LAST], parameters)
    client.log_batch(run, metrics[-LAST:], tags=[RunTag(*one) for one in tags.items()])


def _key(name: str) -> str:
    """A name as MLflow takes it, which has laws for them."""
    return _FOREIGN.sub("_", name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
