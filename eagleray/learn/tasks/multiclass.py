"""Multiclass: three or more classes."""

from __future__ import annotations

from eagleray.learn.tasks import sanity
from eagleray.learn.tasks.classes import Classes
from eagleray.learn.tasks.task import TargetColumn


class Multiclass(Classes):
    """Three or more classes; a single one is refused."""

    name, metric = "multiclass", "accuracy"
    least, chance = sanity.LEAST_OF_A_CLASS, sanity.LABELS

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        return len(column.classes) not in (0, 2)
