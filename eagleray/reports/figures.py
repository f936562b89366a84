"""Pictures of a report, each with a sentence and its numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import messages
from eagleray.look import pictures
from eagleray.look.pictures import Axis, Series
from eagleray.reports import searched
from eagleray.spec import auto
from eagleray.state.evaluations import Diagram, Estimate, Evaluation
from eagleray.state.searches import Record

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_ROWS = 24
"""Maximum number of lines of a picture's table, evenly spaced."""
MOST_CURVES = 30  # trials with a curve; the best
MOST_PARALLEL = 60  # trials in parallel coordinates; the best
MOST_AXES = 7  # searched keys in parallel coordinates
MOST_COLUMNS = 12  # columns whose importance is drawn


@dataclass(frozen=True)
class Figure:
    """One picture: what it is, what it says, and its numbers."""

    title: str
    says: str
    picture: Markup
    headings: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


def beside(title: str, found: Evaluation) -> Figure | None:
    """The version, the champion and the baselines by the selecting metric."""
    every = [(title, found.metrics.get(found.metric))]
    if found.champion is not None:
        name = f"champion, version {found.champion.version}"
        every.append((name, found.champion.metrics.get(found.metric)))
    every += [(one.name, one.metrics.get(found.metric)) for one in found.baselines]
    known = [(name, one) for name, one in every if one is not None]
    if not known or known[0][0] != title:
        return None
    wanted = "higher" if found.mode == "max" else "lower"
    return _dots(
        f"{found.metric} on the {found.rows:,} rows of the test part",
        f"Marks are values, lines their 95 % intervals; {wanted} is better. Intervals of two models"
        " on the same rows may overlap although one is better: the verdict goes by pairs.",
        f"{found.metric}, {wanted} is better",
        known,
    )


def important(found: Evaluation) -> Figure | None:
    """What each column is worth."""
    known = [(one.column, one.drop) for one in found.importance[:MOST_COLUMNS]]
    if not known:
        return None
    return _dots(
        "What each column is worth",
        f"How much worse {found.metric} becomes when the column's values change places among rows"
        " (mean of 5 shuffles, with 95 % intervals). Columns that tell the same share their worth.",
        f"loss of {found.metric}",
        known,
    )


def by_rows(found: Evaluation) -> Figure | None:
    """The metric by the number of training rows, and up to twice as many by the power law.

    None where there is no curve.
    """
    curve = found.learning_curve
    if curve is None:
        return None
    rows, scores = [one.rows for one in curve.points], [one.score for one in curve.points]
    sides = [(one.low, one.high) for one in scores if one.low is not None and one.high is not None]
    low, high = zip(*sides, strict=True) if len(sides) == len(rows) else (None, None)
    values = [one.value for one in scores]
    measured = Series("measured", rows, values, low, high, marks=True)
    most = 2 * rows[-1]
    every = [rows[0] * (most / rows[0]) ** (place / 40) for place in range(41)]
    law = Series("power law", every, [curve.expected(one) for one in every], colour=1)
    says = (
        f"{curve.metric} on the test part by the number of training rows. Marks, with their 95 %"
        " intervals, are the best trial's configuration trained on shares of the rows; the line is"
        f" the power law through them, up to twice the rows. By it {curve.says}."
    )
    bounds = [bound for pair in sides for bound in pair]
    across, up = (
        Axis("training rows", 0, most),
        Axis.over(curve.metric, [*measured.y, *law.y, *bounds]),
    )
    picture = pictures.plot([measured, law], across, up, says=says, named=False)
    headings = ("training rows", curve.metric, "95 % interval", "by the law")
    table: list[tuple[object, ...]] = [
        (count, one.value, one.sides(), curve.expected(count))
        for count, one in zip(rows, scores, strict=True)
    ]
    table.append((most, None, "", curve.expected(most)))
    return Figure("Learning curve by the number of rows", says, picture, headings, table)


def drawn(one: Diagram) -> Figure:
    """A diagram of the task."""
    series = [
        Series(line.name, line.x, line.y, line.low, line.high, marks=one.marks, colour=place)
        for place, line in enumerate(one.lines)
    ]
    x, y = _axis(one.x, [line.x for line in one.lines]), _axis(one.y, _ys(one))
    says = f"{one.title}. {one.says}"
    picture = pictures.plot(series, x, y, says=says, diagonal=one.diagonal)
    headings = (
        (one.x, one.y, "95 % interval") if any(line.low for line in one.lines) else (one.x, one.y)
    )
    named = ("series", *headings) if len(one.lines) > 1 else headings
    return Figure(one.title, one.says, picture, named, _numbers(one, named))


def learning(trials: Sequence[Record], metric: str, winner: int | None) -> Figure | None:
    """The metric on the validation part by epoch; the winner's line in colour."""
    shown = [one for one in trials[:MOST_CURVES] if any(metric in epoch for epoch in one.history)]
    if not shown:
        return None
    series = []
    for one in shown:
        points = [(n, epoch[metric]) for n, epoch in enumerate(one.history, 1) if metric in epoch]
        x, y = zip(*_spaced(points), strict=True)
        series.append(Series(f"trial {one.number}", x, y, grey=one.number != winner))
    axis, unit = Axis.over(metric, [value for one in series for value in one.y]), _unit(shown[0])
    longest = max(max(one.x) for one in series)
    many = "one trial" if len(shown) == 1 else f"{len(shown)} trials"
    said = f"{metric} on the validation part after each epoch of {many}"
    if unit == "fold":
        said = f"{metric} on the validation part of each fold, of {many}"
    says = f"{said}; the winner's line is in colour." if winner else f"{said}."
    best = next((one for one in series if not one.grey), series[0])
    picture = pictures.plot(series, Axis(unit, 0, longest + 1), axis, says=says, named=False)
    rows: list[tuple[object, ...]] = list(zip(best.x, best.y, strict=True))
    return Figure(
        f"Trials by {unit}", says, picture, (unit, f"{metric} of {best.name}"), _some(rows)
    )


def _unit(trial: Record) -> str:
    """What an entry of a trial's history is."""
    return "fold" if trial.folds > 1 else "epoch"


def losses(trials: Sequence[Record], winner: int | None) -> Figure | None:
    """The losses of the winner by epoch: training and validation part; none of a trial by folds."""
    one = next((trial for trial in trials if trial.number == winner), None)
    if one is None or one.folds > 1 or len(one.history) < 2:
        return None
    series = []
    for place, (key, name) in enumerate((("train_loss", "training"), ("loss", "validation"))):
        points = [(n, epoch[key]) for n, epoch in enumerate(one.history, 1) if key in epoch]
        if points:
            x, y = zip(*_spaced(points), strict=True)
            series.append(Series(name, x, y, colour=place))
    if not series:
        return None
    axis = Axis.over("loss", [value for line in series for value in line.y], include=[0.0])
    says = (
        "Loss of the winner after each epoch. Where validation rises while training falls, it"
        f" learns by heart; weights are those of epoch {one.best_epoch}."
    )
    picture = pictures.plot(series, Axis("epoch", 0, len(one.history) + 1), axis, says=says)
    rows = [
        (n, epoch.get("train_loss"), epoch.get("loss")) for n, epoch in enumerate(one.history, 1)
    ]
    return Figure(
        "Loss of the winner", says, picture, ("epoch", "training", "validation"), _some(rows)
    )


def survival(trials: Sequence[Record]) -> Figure | None:
    """How many trials trained how long."""
    lengths = sorted(one.epoch for one in trials if one.epoch)
    if len(lengths) < 2:
        return None
    epochs = list(range(1, lengths[-1] + 1))
    left = [sum(one >= epoch for one in lengths) for epoch in epochs]
    counts = {
        status: sum(one.status == status for one in trials) for status in ("stopped", "failed")
    }
    unit = _unit(trials[0])
    says = (
        f"Trials that trained at least so many {unit}s: of {len(trials)}, {counts['stopped']} were"
        f" stopped early by the scheduler and {counts['failed']} failed."
    )
    points = _spaced(list(zip(epochs, left, strict=True)))
    x, y = zip(*points, strict=True)
    axis = Axis("trials", 0, max(left) * 1.05)
    picture = pictures.plot(
        [Series("trials", x, y)], Axis(unit, 0, epochs[-1] + 1), axis, says=says
    )
    return Figure("Who went on", says, picture, (unit, "trials"), _some(points))


def parallel(trials: Sequence[Record], metric: str, winner: int | None) -> Figure | None:
    """Parallel coordinates: a line through each trial's values, the winner's in colour."""
    shown = [one for one in trials[:MOST_PARALLEL] if one.score is not None]
    drawn = [auto.effective(one.values) for one in shown]
    names = list(dict.fromkeys(key for one in drawn for key in one))[:MOST_AXES]
    if len(shown) < 2 or not names:
        return None
    scales = [_Scale.of(name, [own[name] for own in drawn if name in own]) for name in names]
    scales.append(_Scale.of(metric, [one.score for one in shown]))
    said = f"A line for each of {len(shown)} trials, through its values and its {metric}"
    says = f"{said}; the winner's is in colour." if winner else f"{said}."
    values = [{**own, metric: one.score} for own, one in zip(drawn, shown, strict=True)]
    lines = [
        (
            [scale.place(row[scale.name]) if scale.name in row else None for scale in scales],
            one.number == winner,
        )
        for one, row in zip(shown, values, strict=True)
    ]
    picture = _coordinates(scales, lines, says)
    rows = [
        (one.number, *(_cell(own[name]) if name in own else "" for name in names), one.score)
        for one, own in zip(shown, drawn, strict=True)
    ]
    return Figure("What was tried", says, picture, ("trial", *names, metric), rows[:MOST_ROWS])


def worth(found: searched.Worth, metric: str) -> Figure | None:
    """What each searched key is worth."""
    known = [(name, Estimate(value=share)) for name, share in found.shares.items()]
    if not known:
        return None
    left = f" Keys that only some trials have are left out: {', '.join(found.left)}."
    says = (
        f"Share of the variance of {metric} among {found.trials} trials that each searched key"
        " explains, alone and with others (fANOVA). Trials that were stopped early count with the"
        f" score that they had.{left if found.left else ''}"
    )
    return _dots("What each searched key is worth", says, "share", known[:MOST_COLUMNS])


@dataclass(frozen=True)
class _Scale:
    """An axis of parallel coordinates: numbers, or names in their order."""

    name: str
    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> _Scale:
        numbers = [
            one for one in values if isinstance(one, int | float) and not isinstance(one, bool)
        ]
        if len(numbers) < len(values):
            return cls(name, 0, 1, names=tuple(sorted({_cell(one) for one in values})))
        log = min(numbers) > 0 and max(numbers) / min(numbers) >= searched.WIDE
        return cls(name, min(numbers), max(numbers), log)

    def place(self, value: Any) -> float:
        """Where a value is, from 0 to 1."""
        if self.names:
            return self.names.index(_cell(value)) / max(1, len(self.names) - 1)
        low, high, at = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return 0.5 if high == low else (at - low) / (high - low)

    @property
    def labels(self) -> list[tuple[float, str]]:
        if self.names:
            return [(self.place_of(name), name) for name in self.names[:8]]
        ends = [(0.0, self.low), (1.0, self.high)] if self.low < self.high else [(0.5, self.low)]
        return [(at, messages.number(value, ".3g")) for at, value in ends]

    def place_of(self, name: str) -> float:
        return self.names.index(name) / max(1, len(self.names) - 1)


def _coordinates(
    scales: Sequence[_Scale], lines: Sequence[tuple[list[float | None], bool]], says: str
) -> Markup:
    """`lines` are places on the scales, None where a trial has no such value."""
    step, top, bottom = 120.0, 30.0, 210.0
    width = step * len(scales)
    parts: list[str] = []

    def y(place: float) -> float:
        return bottom - place * (bottom - top)

    for places, ours in sorted(lines, key=lambda one: one[1]):
        points = " ".join(
            f"{step * n + 20:.1f},{y(at):.1f}" for n, at in enumerate(places) if at is not None
        )
        parts.append(f'<polyline class="line {"s0" if ours else "grey"}" points="{points}"/>')
    for number, scale in enumerate(scales):
        x = step * number + 20
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        short = scale.name.rsplit(".", 1)[-1]
        parts.append(
            pictures.text(x, top - 12, short, "start" if number == 0 else "middle", "name")
        )
        for at, label in scale.labels:
            parts.append(pictures.text(x + 5, y(at) + 4, label[:14], "start"))
    return pictures.svg(parts, width, bottom + 16, says)


def _dots(title: str, says: str, label: str, known: Sequence[tuple[str, Estimate]]) -> Figure:
    rows = [(name, one.value, one.low, one.high) for name, one in known]
    picture = pictures.dots(rows, label)
    return Figure(title, says, picture, ("", label, "from", "to"), list(rows))


def _axis(label: str, values: Sequence[Sequence[float]]) -> Axis:
    """An axis of shares ends at 0 and 1."""
    every = [value for one in values for value in one]
    if every and min(every) >= 0 and max(every) <= 1:
        return Axis(label, 0.0, 1.0)
    return Axis.over(label, every)


def _ys(one: Diagram) -> list[list[float]]:
    bounds = [bound for line in one.lines for bound in (line.low, line.high) if bound]
    return [*(line.y for line in one.lines), *bounds]


def _numbers(one: Diagram, headings: Sequence[str]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for line in one.lines:
        name = (line.name,) if headings[0] == "series" else ()
        for place, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
            sides: tuple[object, ...] = ()
            if line.low and line.high:
                low, high = (messages.number(one[place], ".3g") for one in (line.low, line.high))
                sides = (f"{low} to {high}",)
            rows.append((*name, x, y, *sides))
    return _some(rows)


def _some(rows: list[Any]) -> list[Any]:
    """At most `MOST_ROWS` of the rows, the first and the last among them."""
    return _spaced(rows, MOST_ROWS)


def _spaced(rows: list[Any], most: int = 60) -> list[Any]:
    if len(rows) <= most:
        return rows
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def of_diagrams(found: Evaluation) -> Iterator[Figure]:
    """The task's diagrams, in its order."""
    yield from map(drawn, found.diagrams)
