"""A model judged on its test part, whole. Legend: B rows."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from eagleray import messages
from eagleray.evaluation import baselines, fairness, fit, importance, intervals, slices, training
from eagleray.learn import features, metrics, schema, tasks
from eagleray.learn.columns import values
from eagleray.state.evaluations import (
    Baseline,
    Confusion,
    Estimate,
    Evaluation,
    Fit,
    Interval,
    Wrong,
)

MOST_WRONG = 15
MOST_TRAIN = 5000
"""Maximum number of training rows that are predicted, to compare with the test part."""
_SAMPLED = 200  # training rows whose encoding says how many inputs a row has
MOST_SHOWN = 12  # columns of a wrong row
MOST_CHARACTERS = 120  # of a value of a wrong row


@dataclass(frozen=True)
class Model:
    """What is judged: canonical columns in, a model's inputs or outputs out.

    Attributes:
        encode_training: the same of training rows, from their targets and marks too.
        plain: baselines of its own by name, see `bundle.Bundle.baselines`.
    """

    known: schema.Schema
    shape: features.Shape
    encode: Callable[[schema.Columns], features.Inputs]
    encode_training: Callable[[schema.Columns, np.ndarray, features.Marks], features.Inputs]
    predict: Callable[[schema.Columns], np.ndarray]
    plain: Mapping[str, Callable[[schema.Columns], np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Rows of the test or of the training part: canonical columns, targets, numbers from 1."""

    columns: schema.Columns
    truth_B: np.ndarray
    row_B: np.ndarray
    marks: features.Marks = features.UNMARKED

    def some(self, most: int) -> "Part":
        """Take at most this many rows, evenly spaced."""
        places = np.linspace(0, len(self.truth_B) - 1, min(len(self.truth_B), most)).astype(int)
        columns = {name: array[places] for name, array in self.columns.items()}
        return Part(columns, self.truth_B[places], self.row_B[places], self.marks.take(places))


def evaluate(
    model: Model,
    metric: str,
    *,
    test: Part,
    judged: intervals.Judged,
    train: Part,
    history: Sequence[Mapping[str, float]],
    trained: training.Training | None = None,
    protected: Sequence[tuple[schema.Column, np.ndarray]] = (),
) -> Evaluation:
    """Judge a model; `judged` is it on the test part, `history` the metrics by epoch.

    Without `trained` nothing is said of its training beyond over- and under-fitting. `protected`
    are columns of the test part by whose groups it is compared; they need not be inputs.
    """
    target, outputs = model.known.target, judged.outputs
    task = tasks.of(target)
    found = intervals.estimates(judged)
    seen = task.evaluate(test.truth_B, outputs, {name: one.value for name, one in found.items()})
    named = (one for one in model.known.columns if one.name != target.user)
    columns = [(one, test.columns[one.name]) for one in named]
    miss_B = task.misses(test.truth_B, outputs)
    groups, looked = ([], 0) if miss_B is None else slices.worst(judged, metric, columns, miss_B)
    plain, notes = _baselines(model, metric, judged, train, test)
    important = importance.measure(target, metric, test.columns, test.truth_B, model.predict)
    return Evaluation(
        target=target.name,
        metric=metric,
        mode=metrics.REGISTRY[metric].mode,
        rows=len(test.truth_B),
        headline=task.headline(test.truth_B, outputs),
        telling=list(task.telling),
        miss=task.miss,
        metrics=found,
        classes=list(target.classes),
        confusion=seen.confusion,
        confused=[
            Confusion(truth=truth, predicted=predicted, rows=rows)
            for truth, predicted, rows in seen.confused
        ],
        warnings=seen.warnings,
        baselines=plain,
        diagrams=list(task.diagrams(test.truth_B, outputs)),
        slices=groups,
        groups=looked,
        importance=important,
        fairness=fairness.measure(judged, metric, protected),
        wrong=_wrong(model, task, test, outputs, [one.column for one in important]),
        fit=_fit(model, metric, train, found.get(metric), history, plain, trained),
        intervals=[_interval(one) for one in seen.intervals],
        training=training.examine(trained, history, train.columns) if trained else [],
        notes=[*notes, *_left_out(model.known, test)],
    )


def unbeaten(evaluation: Evaluation) -> Iterator[str]:
    """Yield a sentence, without its subject, for each baseline that is as good or better."""
    metric, ours = evaluation.metric, evaluation.metrics.get(evaluation.metric)
    for one in evaluation.baselines:
        if one.verdict is None or ours is None or one.verdict.outcome == "better":
            continue
        theirs = one.metrics[metric]
        how = (
            "is worse than" if one.verdict.outcome == "worse" else "is not better beyond noise than"
        )
        yield (
            f"{how} a baseline, {one.name}: {metric} {messages.number(ours.value, '.4f')}"
            f" against {messages.number(theirs.value, '.4f')} on the same rows"
            f"{_between(one.verdict.difference)}"
        )


def _between(gap: Estimate) -> str:
    sides = gap.between(".4f")
    return f", difference {messages.number(gap.value, '+.4f')}{sides}" if sides else ""


def _baselines(
    model: Model, metric: str, judged: intervals.Judged, train: Part, test: Part
) -> tuple[list[Baseline], list[str]]:
    """Each baseline, and a note where one could not be fitted."""
    task, notes = tasks.of(model.known.target), list[str]()
    inputs, rows = _inputs(model, train), len(test.truth_B)
    most = baselines.most_rows(task, inputs)
    plain = [baselines.constant(task, train.truth_B, rows)]
    plain.append((name, partial(made, test.columns)) for name, made in model.plain.items())
    able = bool(task.estimators())
    if able and inputs * rows > baselines.MOST_INPUTS:
        notes.append(
            f"baselines: left out, {rows:,} test rows of {inputs:,.0f} inputs are more than"
            f" {baselines.MOST_INPUTS:,}"
        )
    elif able:
        plain.append(_fitted(model, task, train.some(most), test))
        if len(train.truth_B) > most:
            notes.append(f"baselines: fitted on {most:,} of {len(train.truth_B):,} training rows")
    found: list[Baseline] = []
    for name, made in itertools.chain(*plain):
        try:
            found.append(baselines.judge(judged, name, made(), metric))
        except Exception as cause:  # noqa: BLE001 - of any library; the others still count
            notes.append(f"baselines: {name} could not be fitted: {cause}")
    return found, notes


def _fitted(
    model: Model, task: tasks.Task, train: Part, test: Part
) -> Iterator[tuple[str, baselines.Made]]:
    inputs = model.encode_training(train.columns, train.truth_B, train.marks)
    known = baselines.Encoded(inputs, train.truth_B)
    asked = baselines.Encoded(model.encode(test.columns), test.truth_B)
    yield from baselines.fitted(task, model.shape, known, asked)


def _inputs(model: Model, train: Part) -> float:
    """How many numbers a row is for a model, by some training rows."""
    some = train.some(_SAMPLED)
    encoded = model.encode(some.columns)
    return sum(array.size for array in encoded.values()) / max(1, len(some.truth_B))


def _fit(
    model: Model,
    metric: str,
    train: Part,
    test: Any,
    history: Sequence[Mapping[str, float]],
    plain: Sequence[Baseline],
    trained: training.Training | None,
) -> Fit:
    some, target = train.some(MOST_TRAIN), model.known.target
    if tasks.of(target).remembers:
        says = "what was learned from is left out of the outputs, so that its rows say nothing"
        return Fit(sign="none", says=says, train={}, rows=0)
    scores = metrics.score(target, some.truth_B, model.predict(some.columns))
    found = fit.judge(metric, scores, len(some.truth_B), test, history, plain)
    if trained is None or found.sign == "none":
        return found
    sign = "too weak" if fit.TOO_WEAK in found.says else found.sign
    return found.model_copy(update={"fix": training.mended(trained, sign)})


def _interval(one: tasks.Interval) -> Interval:
    coverage = intervals.proportion(one.bin.was, one.bin.rows)
    return Interval(level=one.level, coverage=coverage, width=one.width)


def _wrong(
    model: Model, task: tasks.Task, test: Part, outputs: np.ndarray, first: Sequence[str]
) -> list[Wrong]:
    """The most wrong rows, with the values of the most important columns."""
    miss_B = task.misses(test.truth_B, outputs)
    if miss_B is None:
        return []
    worst = np.argsort(-miss_B, kind="stable")[:MOST_WRONG]
    worst = worst[miss_B[worst] > 0]
    named = {one.name: one for one in model.known.columns}
    order = dict.fromkeys([*first, *named])
    shown = [named[name] for name in itertools.islice(order, MOST_SHOWN)]
    cells = {
        one.name: [_short(one, value) for value in one.kind.to_json(test.columns[one.name][worst])]
        for one in shown
    }
    table = task.table(test.truth_B[worst], outputs[worst])
    return [
        Wrong(
            row=int(test.row_B[row]),
            truth=_native(table["truth"][place]),
            prediction=_native(table["prediction"][place]),
            miss=float(miss_B[row]),
            values={name: found[place] for name, found in cells.items()},
        )
        for place, row in enumerate(worst.tolist())
    ]


def _left_out(known: schema.Schema, test: Part) -> Iterator[str]:
    for what, most in (("importance", importance.MOST_COLUMNS), ("groups", slices.MOST_COLUMNS)):
        if len(known.columns) > most:
            yield f"{what}: the first {most} of {len(known.columns):,} columns were looked at"
    if len(test.truth_B) < 2 * slices.LEAST_ROWS:
        yield f"groups: none has {slices.LEAST_ROWS} of the {len(test.truth_B)} rows"


def _short(column: schema.Column, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        return column.type
    return (
        values.shown(value) if column.kind.is_time else messages.shortened(value, MOST_CHARACTERS)
    )


def _native(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
