"""Gradient flow: the norm of each layer's gradient over the epochs of the winner."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eagleray.look import pictures
from eagleray.look.pictures import MOST_COLOURS, Axis, Series
from eagleray.reports.figures import MOST_ROWS, Figure
from eagleray.state.watches import Row

SMALLEST = 1e-12
"""Norms below are drawn there."""


def gradients(layers: Sequence[Row]) -> Figure | None:
    """A line for each layer, the first in colour; None where nothing was watched."""
    epochs = sorted({row.epoch for row in layers})
    if not epochs:
        return None
    names = list(dict.fromkeys(row.layer for row in layers))
    coloured = _spaced(names)
    series = []
    for name in names:
        own = [row for row in layers if row.layer == name and math.isfinite(row.gradient)]
        x, y = [row.epoch for row in own], [_power(row.gradient) for row in own]
        place = coloured.index(name) if name in coloured else 0
        if own:
            series.append(Series(name, x, y, colour=place, grey=name not in coloured))
    drawn = [value for one in series for value in one.y]
    low, high = math.floor(min(drawn, default=0)), math.ceil(max(drawn, default=0) + 1e-9)
    axis = Axis("norm of the gradient", low, max(high, low + 1), powers=True)
    says = (
        "Norm of each layer's gradient in one batch of an epoch, before clipping, on a logarithmic"
        " scale. Layers far below the last one hardly learn; lines that rise by powers of ten"
        " explode."
    )
    picture = pictures.plot(series, Axis("epoch", 0, epochs[-1] + 1), axis, says=says)
    return Figure("Gradient flow", says, picture, _headings(), _last(layers, epochs[-1]))


def _headings() -> tuple[str, ...]:
    return ("layer", "gradient", "weights", "step by weights", "dead units")


def _last(layers: Sequence[Row], epoch: int) -> list[tuple[object, ...]]:
    """The layers in the last epoch that was watched."""
    rows = [row for row in layers if row.epoch == epoch][:MOST_ROWS]
    return [(row.layer, row.gradient, row.weight, row.update, row.dead) for row in rows]


def _spaced(names: Sequence[str]) -> list[str]:
    """At most as many as there are colours, from the first to the last."""
    if len(names) <= MOST_COLOURS:
        return list(names)
    step = (len(names) - 1) / (MOST_COLOURS - 1)
    return [names[round(place * step)] for place in range(MOST_COLOURS)]


def _power(value: float) -> float:
    return math.log10(max(value, SMALLEST))
