"""Binary: two classes, of which the last is the one that is looked for."""

from __future__ import annotations

from eagleray.learn.tasks import sanity
from eagleray.learn.tasks.classes import Classes
from eagleray.learn.tasks.task import TargetColumn


class Binary(Classes):
    """Two classes."""

    name, metric, positive = "binary", "roc_auc", 1
    least, chance = 1, sanity.RANKING

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        return len(column.classes) == 2
