"""How predictions differ among the groups of a protected column.

For two classes: shares predicted positive and rates of errors, with Wilson's intervals. For
numbers: the mean error. Legend: B rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from eagleray.evaluation import intervals, slices
from eagleray.learn import schema, tasks
from eagleray.state.evaluations import Estimate, FairGroup, Fairness, Gap

LEAST_ROWS = slices.LEAST_ROWS
"""Rows of a group from which it is compared with others."""
PARITY, ODDS, ERRORS = "demographic parity difference", "equalised odds difference", "mean error"
_Z = 1.96
_MEASURES = {PARITY: ("positive",), ODDS: ("true_positive", "false_positive"), ERRORS: ("error",)}


def measure(
    judged: intervals.Judged, metric: str, columns: Sequence[tuple[schema.Column, np.ndarray]]
) -> list[Fairness]:
    """Compare the groups of each column on the rows of the test part."""
    return [_column(judged, metric, slices.groups(*one)) for one in columns]


def _column(judged: intervals.Judged, metric: str, of: slices.Groups) -> Fairness:
    found = [
        _group(judged, metric, name, inside_B)
        for place, name in enumerate(of.names)
        if (inside_B := of.place_B == place).any()
    ]
    found.sort(key=lambda one: -one.rows)
    return Fairness(column=of.column, least=LEAST_ROWS, groups=found, gaps=list(_gaps(found)))


def _group(judged: intervals.Judged, metric: str, name: str, inside_B: np.ndarray) -> FairGroup:
    part, rows = judged.some(inside_B, (metric,)), int(inside_B.sum())
    score = intervals.estimates(part).get(metric) if rows >= LEAST_ROWS else None
    return FairGroup(name=name, rows=rows, score=score, **_rates(judged, inside_B))


def _rates(judged: intervals.Judged, inside_B: np.ndarray) -> dict[str, Estimate | None]:
    task, outputs = tasks.of(judged.target), judged.outputs[inside_B]
    truth_B = judged.truth_B[inside_B]
    if task.positive is not None:
        alarm_B, true_B = task.decide(outputs) == task.positive, truth_B == task.positive
        return {
            "positive": _share(alarm_B),
            "true_positive": _share(alarm_B[true_B]),
            "false_positive": _share(alarm_B[~true_B]),
        }
    if task.target.classes:
        return {}
    table = task.table(truth_B, outputs)
    return {"error": _mean(table["prediction"] - table["truth"])}


def _share(true_B: np.ndarray) -> Estimate | None:
    return intervals.proportion(float(true_B.mean()), len(true_B)) if len(true_B) else None


def _mean(error_B: np.ndarray) -> Estimate:
    mean = float(error_B.mean())
    if len(error_B) < 2:
        return Estimate(value=mean)
    reach = _Z * float(error_B.std(ddof=1)) / len(error_B) ** 0.5
    return Estimate(value=mean, low=mean - reach, high=mean + reach)


def _gaps(groups: Sequence[FairGroup]) -> Iterator[Gap]:
    """Yield the largest difference of each measure, of the groups with enough rows."""
    able = [one for one in groups if one.rows >= LEAST_ROWS]
    for name, rates in _MEASURES.items():
        every = [gap for rate in rates if (gap := _gap(name, rate, able)) is not None]
        if every:
            yield max(every, key=lambda one: one.value)


def _gap(name: str, rate: str, groups: Sequence[FairGroup]) -> Gap | None:
    known = [(value, one.name) for one in groups if (value := getattr(one, rate)) is not None]
    if len(known) < 2:
        return None
    (low, lowest), (high, highest) = (
        side(known, key=lambda one: one[0].value) for side in (min, max)
    )
    ends = (low.high, high.low)
    sure = ends[0] is not None and ends[1] is not None and ends[0] < ends[1]
    value = high.value - low.value
    return Gap(name=name, rate=rate, value=value, lowest=lowest, highest=highest, sure=sure)
