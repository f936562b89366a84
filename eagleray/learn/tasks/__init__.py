"""Tasks, one file each; no other module depends on which task it is.

A task is added as a file here and a line in `REGISTRY`; by an installed package
(`eagleray.plugins`) with `REGISTRY.register`.
"""

from collections.abc import Container

from eagleray import errors, plugins
from eagleray.learn import schema
from eagleray.learn.tasks.binary import Binary
from eagleray.learn.tasks.multiclass import Multiclass
from eagleray.learn.tasks.quantiles import MEDIAN as MEDIAN
from eagleray.learn.tasks.quantiles import Quantiles
from eagleray.learn.tasks.ranking import Ranking
from eagleray.learn.tasks.regression import Regression
from eagleray.learn.tasks.task import Alternative as Alternative
from eagleray.learn.tasks.task import Averaged as Averaged
from eagleray.learn.tasks.task import Evaluation as Evaluation
from eagleray.learn.tasks.task import Interval as Interval
from eagleray.learn.tasks.task import Scale as Scale
from eagleray.learn.tasks.task import TargetColumn as TargetColumn
from eagleray.learn.tasks.task import Task as Task
from eagleray.state.diagrams import Bin as Bin
from eagleray.state.diagrams import Diagram as Diagram
from eagleray.state.diagrams import Line as Line

BINARY = frozenset({Binary.name})
CLASSES = frozenset({Binary.name, Multiclass.name})
VALUES = frozenset({Regression.name})
QUANTILES = frozenset({Quantiles.name})
RANKING = frozenset({Ranking.name})
"""Tasks of the built-in losses and metrics."""

REGISTRY: plugins.Registry[type[Task]] = plugins.Registry(
    "task", {task.name: task for task in (Binary, Multiclass, Regression, Quantiles, Ranking)}
)


def of(target: schema.Target) -> Task:
    """The task of a target; NotFoundError where no installed package has it."""
    return REGISTRY[target.task](target)


def infer(column: TargetColumn, preferred: Container[str]) -> Task:
    """The first task that fits; `preferred` ones, of the file's loss and metric, come first.

    DataError where no task fits, or nothing can be learned from the column.
    """
    fitting = [name for name in REGISTRY if REGISTRY[name].fits(column)]
    if not fitting:
        name, kind = column.column.name, column.column.type
        raise errors.DataError(f"{name}: the target is a number or a class, but got {kind}")
    chosen = REGISTRY[next((name for name in fitting if name in preferred), fitting[0])]
    return chosen(chosen.describe(column))
