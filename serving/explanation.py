"""Why a row was answered as it was: contributions of its columns against the golden rows."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from eagleray import bundle, errors
from eagleray.learn import schema, shapley

MOST_ROWS = 100
"""Rows that a request may have explained: each takes as long as thousands of predictions."""


class Explainer:
    """Explains answers of one version; golden rows are rows of its validation part.

    The value explained is the prediction (of quantiles the median), or the probability of the class
    that is the answer.
    """

    def __init__(self, loaded: bundle.Bundle) -> None:
        self._bundle = loaded

    def explain(self, row: schema.Columns) -> dict[str, Any]:
        """The mean prediction of the golden rows, and what each column adds to it."""
        outputs = self._bundle.predict_columns(row).outputs
        best = self._bundle.task.explained(outputs)

        def predict(columns: schema.Columns) -> np.ndarray:
            many = self._bundle.predict_columns(columns).outputs
            return many if best is None else many[:, best]

        found = shapley.contributions(predict, row, self._background)
        if not np.isfinite([found.mean, *found.by_column.values()]).all():
            raise errors.ServingError("a model's outputs must be finite numbers, but got others")
        return {"mean": found.mean, "contributions": found.by_column}

    @functools.cached_property
    def _background(self) -> schema.Columns:
        assert self._bundle.golden is not None
        return schema.parse(self._bundle.schema, self._bundle.golden.rows)


def check(loaded: bundle.Bundle, count: int) -> None:
    """RequestError 422 where answers cannot be explained, 413 for more than `MOST_ROWS`."""
    if not loaded.task.explains:
        law = f"answers of {loaded.task.name} have no contributions by column"
        raise errors.RequestError(f"{law}, so explain must be left out", field="explain")
    if count > MOST_ROWS:
        law = f"at most {MOST_ROWS} rows are explained at once"
        raise errors.RequestError(f"{law}, but got {count}", field="instances", status=413)
