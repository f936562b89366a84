"""Metrics of what versions predict; `serving.metrics` has those of requests.

Batches wait in a queue and are counted many at a time, when metrics are read: no answer waits.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.bundle import Bundle, Prediction
from eagleray.learn import features

if TYPE_CHECKING:
    import prometheus_client as prometheus

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MOST_OUTCOMES = 20
"""Outcomes of a version that have a series of their own; further ones are counted as `OTHER`."""
OTHER = "other"
MOST_PENDING = 256
"""Batches that wait; the next one has them counted."""


class Predictions:
    """Counts predictions by version; `counter` and `histogram` make metrics."""

    def __init__(
        self,
        model: str,
        counter: Callable[..., prometheus.Counter],
        histogram: Callable[..., prometheus.Histogram],
    ) -> None:
        version = "model", "version"
        self._model = model
        self._pending: deque[tuple[Bundle, Prediction]] = deque()
        self._named: dict[str, set[str]] = {}  # outcomes by version
        self._batches = histogram("eagleray_batch_rows", "Rows in a batch.", version, buckets=ROWS)
        self._rows = counter("eagleray_rows", "Rows predicted.", version)
        self._outcomes = counter(
            "eagleray_predictions", "Rows by predicted class or range.", (*version, "outcome")
        )
        self._confidence = histogram(
            "eagleray_confidence", "Probability of the label.", version, buckets=CONFIDENCE
        )
        self._unknown = counter(
            "eagleray_unknown_categories", "Values not seen in training.", version
        )
        self._far = counter(
            "eagleray_out_of_range", "Numbers far outside the training range.", version
        )

    def add(self, loaded: Bundle, prediction: Prediction) -> None:
        """Have the predictions of a batch counted later; from any thread."""
        self._pending.append((loaded, prediction))
        if len(self._pending) >= MOST_PENDING:
            self.count()

    def count(self) -> None:
        """Count all batches that wait; from any thread."""
        by_version: defaultdict[Bundle, list[Prediction]] = defaultdict(list)
        for loaded, prediction in drained(self._pending):
            by_version[loaded].append(prediction)
        for loaded, predictions in by_version.items():
            self._count(loaded, predictions)

    def _count(self, loaded: Bundle, predictions: list[Prediction]) -> None:
        labels = self._model, str(loaded.number)
        rows = np.array([len(one.outputs) for one in predictions])
        observe(self._batches.labels(*labels), rows)
        self._rows.labels(*labels).inc(int(rows.sum()))
        outputs = np.concatenate([one.outputs for one in predictions])
        confidence = loaded.task.confidence(outputs)
        if confidence is not None:
            observe(self._confidence.labels(*labels), confidence)
        counts = loaded.task.outcome_counts(outputs, loaded.scale)
        for outcome, count in self._bounded(loaded, counts).items():
            self._outcomes.labels(*labels, outcome).inc(count)
        self._warn(labels, predictions)

    def _bounded(self, loaded: Bundle, counts: Counter[str]) -> Counter[str]:
        """The first outcomes of the task, or the outcomes that came first; all else as `OTHER`."""
        named = self._named.setdefault(
            str(loaded.number), set(loaded.task.outcomes[:MOST_OUTCOMES])
        )
        bounded: Counter[str] = Counter()
        for outcome, count in counts.items():
            if len(named) < MOST_OUTCOMES:
                named.add(outcome)
            bounded[outcome if outcome in named else OTHER] += count
        return bounded

    def _warn(self, labels: tuple[str, str], predictions: list[Prediction]) -> None:
        texts = [text for one in predictions for row in one.warnings for text in row]
        unknown = sum(text.endswith(features.UNKNOWN) for text in texts)
        self._unknown.labels(*labels).inc(unknown)
        self._far.labels(*labels).inc(len(texts) - unknown)


def drained(queue: deque[Any]) -> Iterable[Any]:
    """What waits in a queue, to which other threads add."""
    for _ in range(len(queue)):
        try:
            yield queue.popleft()
        except IndexError:  # another thread was faster
            return


def observe(child: prometheus.Histogram, values: np.ndarray) -> None:
    """Observe many values at once, which prometheus_client has no public function for."""
    places, counts = np.unique(np.searchsorted(child._upper_bounds, values), return_counts=True)
    for place, count in zip(places.tolist(), counts.tolist(), strict=True):
        child._buckets[place].inc(count)
    child._sum.inc(float(values.sum()))
