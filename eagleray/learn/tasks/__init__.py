"""Tasks: what is predicted, as objects. No other module depends on which task it is.

A task is added as a file here and a line in `_BUILT_IN`, or by an installed package
(`eagleray.plugins`) that calls `REGISTRY.register`.
"""

from __future__ import annotations

from collections.abc import Container

from eagleray import errors, plugins
from eagleray.learn import schema
from eagleray.learn.tasks.binary import Binary
from eagleray.learn.tasks.multiclass import Multiclass
from eagleray.learn.tasks.regression import Regression
from eagleray.learn.tasks.task import Doubt as Doubt
from eagleray.learn.tasks.task import Evaluation as Evaluation
from eagleray.learn.tasks.task import Scale as Scale
from eagleray.learn.tasks.task import TargetColumn as TargetColumn
from eagleray.learn.tasks.task import Task as Task

BINARY = frozenset({Binary.name})
CLASSES = frozenset({Binary.name, Multiclass.name})
VALUES = frozenset({Regression.name})
"""What the losses and metrics here are for."""

REGISTRY: plugins.Registry[type[Task]] = plugins.Registry("task")
_BUILT_IN: tuple[type[Task], ...] = (Binary, Multiclass, Regression)
for _task in _BUILT_IN:
    REGISTRY.register(_task.name, _task)


def of(target: schema.Target) -> Task:
    """The task of a target; NotFoundError where no package that is installed here has it."""
    return REGISTRY[target.task](target)


def infer(column: TargetColumn, meant: Container[str]) -> Task:
    """The task of a target column: the first that fits, one that the file means before others.

    Args:
        column: the target.
        meant: names of tasks that the loss and the metric of the experiment file are for.

    Raises:
        DataError: no task fits, or nothing can be learned of the column.
    """
    fitting = [name for name in REGISTRY if REGISTRY[name].fits(column)]
    if not fitting:
        name, kind = column.column.name, column.column.type
        raise errors.DataError(f"{name}: the target is a number or a class, but got {kind}")
    chosen = REGISTRY[next((name for name in fitting if name in meant), fitting[0])]
    return chosen(chosen.describe(column))
