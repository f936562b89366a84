"""What a model's outputs are: the task, the classes, and whether they are probabilities.

Legend: B rows, C outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eagleray import errors, messages
from eagleray.bundle import Form
from eagleray.learn import schema, tasks
from eagleray.learn.columns import CATEGORICAL

if TYPE_CHECKING:
    from eagleray.engines import Output

TARGET = "prediction"  # the name of what is predicted, where nobody gives one
_SUM_ERROR = 1e-3  # of the probabilities of a row


@dataclass(frozen=True)
class Options:
    """What the model's file does not say.

    Attributes:
        target: what is predicted; a column of the example with this name holds the truth.
        task: `binary`, `multiclass` or `regression`; else as the outputs are.
        labels: the classes in the order of the outputs.
        output: name of the output with the predictions, where there are several.
        logits: whether the outputs are logits in place of probabilities.
    """

    target: str = TARGET
    task: str | None = None
    labels: tuple[str, ...] = ()
    output: str | None = None
    logits: bool = False


def describe(
    classifies: bool | None,
    given: Output,
    options: Options,
    truth: schema.Raw | None,
    *,
    rows: int,
) -> tuple[schema.Target, Form]:
    """The target and the form of the outputs; `classifies` is what the model's file says.

    UserError where the outputs are no numbers for `rows` rows, or do not fit the options.
    """
    _check(given.raw_BC, rows)
    classes: tuple[str, ...] = ()
    form: Form = "values"
    if _has_classes(classifies, given, options):
        form = _form(given.raw_BC, logits=options.logits)
        classes = _classes(given, max(2, given.raw_BC.shape[1]), options, truth)
    task = _task(given.raw_BC.shape[1], classes, options.task)
    return schema.Target(name=options.target, task=task, classes=classes), form


def _check(raw_BC: np.ndarray, rows: int) -> None:
    if len(raw_BC) != rows or not raw_BC.shape[1]:
        got = " x ".join(map(str, raw_BC.shape))
        raise errors.UserError(
            f"the model must give numbers for each of {rows} rows, but gave {got}"
        )
    if not np.isfinite(raw_BC).all():
        row = int(np.argwhere(~np.isfinite(raw_BC))[0, 0])
        raise errors.UserError(
            f"the model must give finite numbers, but gave {_shown(raw_BC[row])} for row {row + 1} "
            "of the example"
        )


def _has_classes(classifies: bool | None, given: Output, options: Options) -> bool:
    if options.labels or options.logits:
        return True
    if options.task is not None:
        return tasks.REGISTRY[options.task].name in tasks.CLASSES
    if classifies is not None:
        return classifies
    return bool(given.labels is not None or given.classes or given.raw_BC.shape[1] > 1)


def _task(outputs: int, classes: tuple[str, ...], chosen: str | None) -> str:
    fitting = [
        name for name in tasks.REGISTRY if tasks.REGISTRY[name].serves(outputs, len(classes))
    ]
    if not fitting or chosen not in (None, *fitting):
        law = f"must be {' or '.join(fitting)}" if fitting else "none fits"
        what = f"a model of {outputs} outputs and {len(classes)} classes"
        raise errors.UserError(f"task: {law} for {what}, but got {chosen or 'none'}")
    return chosen or fitting[0]


def _form(raw_BC: np.ndarray, *, logits: bool) -> Form:
    if logits:
        return "logits"
    sums_B = raw_BC.sum(1) if raw_BC.shape[1] > 1 else np.ones(len(raw_BC))
    wrong_B = (raw_BC < 0).any(1) | (raw_BC > 1).any(1) | (np.abs(sums_B - 1) > _SUM_ERROR)
    if wrong_B.any():
        row = int(wrong_B.argmax())
        raise errors.UserError(
            "a classifier must give probabilities, each in 0 to 1 and together 1, but gave "
            f"{_shown(raw_BC[row])} for row {row + 1} of the example; --logits says that they are "
            "logits, --task regression that they are values"
        )
    return "probabilities"


def _classes(
    given: Output, count: int, options: Options, truth: schema.Raw | None
) -> tuple[str, ...]:
    """The classes by the option, the file, what it predicts for the example, or the truth."""
    known = options.labels or given.classes or _predicted(given, count)
    known = known or _true(given, count, options, truth)
    if not known:
        raise errors.UserError(
            f"labels: the {count} classes must have names, but neither file nor example tells "
            "which output is which; name them in the order of the outputs (--labels no,yes)"
        )
    if len(known) != count or len(set(known)) != count or not all(known):
        got = messages.listed([repr(one) for one in known], 10)
        raise errors.UserError(f"labels: must be {count} different names, but got {got}")
    return known


def _predicted(given: Output, count: int) -> tuple[str, ...]:
    """The label that the model gives where an output is the largest; empty if one never is."""
    labels = given.labels
    if labels is None or len(labels) != len(given.raw_BC):
        return ()
    return _by_output(given, [str(label) for label in labels], count)


def _true(given: Output, count: int, options: Options, truth: schema.Raw | None) -> tuple[str, ...]:
    """The class that most rows have where an output is the largest; empty if that is unclear."""
    if truth is None:
        return ()
    column = schema.Column(name=options.target, type=CATEGORICAL.name)
    return _by_output(given, schema.parse_column(column, truth).tolist(), count)


def _by_output(given: Output, names_B: Sequence[str | None], count: int) -> tuple[str, ...]:
    raw_BC = given.raw_BC
    best_B = raw_BC.argmax(1) if raw_BC.shape[1] > 1 else (raw_BC[:, 0] > 0.5).astype(int)
    counted = [Counter[str]() for _ in range(count)]
    for best, name in zip(best_B.tolist(), names_B, strict=True):
        if name is not None:
            counted[best][name] += 1
    found = tuple(one.most_common(1)[0][0] for one in counted if one)
    return found if len(set(found)) == count else ()


def _shown(row_C: np.ndarray) -> str:
    return messages.listed([f"{value:.4g}" for value in row_C.tolist()], 5)
