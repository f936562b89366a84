"""Prometheus metrics of a model's replicas, and the owner of their names.

The replicas of a node share a port, and a scrape reaches any one of them. Each writes its own files
in a shared folder (prometheus_client's multiprocess mode), so that any one answers for all. Files
of ended replicas stay, so that counters never decrease; a scrape removes only their gauges.
"""

import functools
import os
import re
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

import numpy as np

from eagleray.bundle import Bundle, Prediction
from serving.predictions import Predictions, drained, observe

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that prometheus_client reads at its first import."""

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
MOST_PENDING = 256
"""Requests that wait to be counted; the next one has them counted."""

_LIVE_FILE = re.compile(r"gauge_live\w*_(\d+)\.db")


PREDICT = "predict"
"""The route of predictions; `serving.web` names those of pages."""


class Traffic(NamedTuple):
    """Predictions that the replicas of a node have answered since its counters began."""

    answered: int
    failed: int  # of these, with an error of the server
    bounds: list[float]  # upper ends of the buckets of times, in seconds; the last one has none
    counts: list[int]  # by bucket
    replicas: dict[str, int]  # that serve a version, by its number


class Metrics:
    """Metrics of this replica; one application's replicas on one node share `folder`."""

    def __init__(self, folder: Path, model: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[FOLDER] = str(folder)
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        own = CollectorRegistry()  # scrapes read the files, not this registry
        counter = functools.partial(Counter, registry=own)
        histogram = functools.partial(Histogram, registry=own)
        gauge = functools.partial(Gauge, registry=own, multiprocess_mode="livesum")
        every = ("model",)
        version = (*every, "version")
        route, answer = (*version, "route"), (*version, "route", "status")
        self.folder, self._model = folder, model
        self._answered: deque[tuple[tuple[str, int, str], float]] = deque()
        self._predictions = Predictions(model, counter, histogram)
        self._requests = counter("eagleray_requests", "Requests answered.", answer)
        self._seconds = histogram(
            "eagleray_request_seconds", "Time to answer.", route, buckets=SECONDS
        )
        self._version = gauge("eagleray_model_version", "Replicas that serve the version.", version)
        self._created = Gauge(
            "eagleray_model_created_seconds",
            "When the version was registered, in seconds since 1970.",
            version,
            registry=own,
            multiprocess_mode="livemax",
        )
        self._captured = counter("eagleray_captured_rows", "Rows captured.", every).labels(model)
        self._not_captured = counter(
            "eagleray_capture_dropped_rows", "Sampled rows that were not captured.", every
        ).labels(model)
        self._refused = counter("eagleray_version_refused", "Versions refused.", version)
        self.queued = gauge("eagleray_queued_rows", "Rows in progress.", every).labels(model)
        self.ongoing = gauge("eagleray_ongoing_requests", "Ongoing requests.", every).labels(model)
        self.busy = gauge("eagleray_busy", "Utilization.", every).labels(model)
        self._labels = counter("eagleray_labels", "Requests whose truth came.", version)
        self._right = counter("eagleray_labels_right", "Those predicted rightly.", version)
        self._storage_errors = counter(
            "eagleray_storage_errors", "Failed reads of the alias or a version.", every
        ).labels(model)

    def request(self, route: str, status: int, seconds: float, *, version: str = "") -> None:
        """Have a request counted later; `version` is the one that answered or failed, if any."""
        self._answered.append(((route, status, version), seconds))
        if len(self._answered) >= MOST_PENDING:
            self._count_requests()

    def predicted(self, loaded: Bundle, prediction: Prediction) -> None:
        """Have the predictions of a batch counted later."""
        self._predictions.add(loaded, prediction)

    def count(self) -> None:
        """Count what waits; a replica calls this about once a second."""
        self._count_requests()
        self._predictions.count()

    def serving(self, version: int, *, instead_of: int | None) -> None:
        if instead_of is not None:
            self._version.labels(self._model, str(instead_of)).set(0)
        self._version.labels(self._model, str(version)).set(1)

    def unloaded(self, version: int) -> None:
        self._version.labels(self._model, str(version)).set(0)

    def loaded(self, version: int, created_s: float) -> None:
        self._created.labels(self._model, str(version)).set(created_s)

    def captured(self, rows: int) -> None:
        self._captured.inc(rows)

    def not_captured(self, rows: int) -> None:
        self._not_captured.inc(rows)

    def labelled(self, version: int, *, right: bool) -> None:
        self._labels.labels(self._model, str(version)).inc()
        self._right.labels(self._model, str(version)).inc(right)

    def refused(self, version: int) -> None:
        self._refused.labels(self._model, str(version)).inc()

    def storage_error(self) -> None:
        self._storage_errors.inc()

    def exposition(self) -> bytes:
        """Return the metrics of all replicas of this node in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._collected())

    def traffic(self) -> Traffic:
        """Return the predictions of all replicas of this node, of this model alone."""
        answered, failed, below, replicas = 0, 0, Counter[float](), Counter[str]()
        samples = [sample for family in self._collected().collect() for sample in family.samples]
        for sample in samples:
            labels, value = sample.labels, int(sample.value)
            if labels.get("model") != self._model:  # further models share the folder
                continue
            if sample.name == "eagleray_model_version":
                replicas[labels["version"]] += value
            elif labels.get("route") != PREDICT:
                continue
            elif sample.name == "eagleray_requests_total":
                answered += value
                failed += value if labels["status"].startswith("5") else 0
            elif sample.name == "eagleray_request_seconds_bucket":
                below[float(labels["le"])] += value
        totals = [below[bound] for bound in (*SECONDS, float("inf"))]
        counts = [total - before for total, before in zip(totals, [0, *totals], strict=False)]
        return Traffic(answered, failed, list(SECONDS), counts, dict(replicas))

    def _collected(self) -> "CollectorRegistry":
        from prometheus_client import CollectorRegistry, multiprocess

        self.count()
        for file in self.folder.iterdir():
            match = _LIVE_FILE.fullmatch(file.name)
            if match and not Path(f"/proc/{match[1]}").exists():
                file.unlink(missing_ok=True)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(self.folder))  # type: ignore[no-untyped-call]
        return registry

    def _count_requests(self) -> None:
        by_labels: defaultdict[tuple[str, int, str], list[float]] = defaultdict(list)
        for labels, seconds in drained(self._answered):
            by_labels[labels].append(seconds)
        for (route, status, version), times in by_labels.items():
            self._requests.labels(self._model, version, route, str(status)).inc(len(times))
            observe(self._seconds.labels(self._model, version, route), np.array(times))
