"""What is drawn of predictions: curves, calibration, residuals. Legend: B rows."""

from collections.abc import Iterator, Sequence

import numpy as np

from eagleray.state.diagrams import Bin, Diagram, Line

BINS = 10  # of a calibration curve, of about equal counts
MOST_POINTS = 100  # maximum number of points of a line
MOST_MARKS = 300  # maximum number of rows that are drawn one by one
MOST_LINES = 7  # maximum number of classes with a line of their own


def of_classes(
    names: Sequence[str], positive: int | None, truth_B: np.ndarray, outputs_BC: np.ndarray
) -> Iterator[Diagram]:
    """ROC and precision-recall curves of classes that have rows, and calibration."""
    shown = [positive] if positive is not None else _frequent(truth_B, len(names))
    able = [one for one in shown if 0 < (truth_B == one).sum() < len(truth_B)]
    if able:
        found = [_curves(names[one], truth_B == one, outputs_BC[:, one]) for one in able]
        rocs, pairs = zip(*found, strict=True)
        yield Diagram(
            name="roc",
            title="ROC curve",
            says="Share of a class that is found against the share of others taken for it, at every"
            " threshold; a curve in the upper left corner is best.",
            x="false positive rate",
            y="true positive rate (recall)",
            lines=rocs,
            diagonal="chance",
        )
        yield Diagram(
            name="precision_recall",
            title="Precision and recall",
            says="How many alarms are right at each share of the class that is found.",
            x="recall",
            y="precision",
            lines=pairs,
        )
    what = "the most probable class" if positive is None else names[positive]
    said = bins(*confidences(positive, truth_B, outputs_BC))
    error = calibration_error(said)
    yield Diagram(
        name="calibration",
        title="Calibration",
        says=f"How often {what} was true where the model said so with a probability; the distance"
        f" from the diagonal is {error:.3f} on average.",
        x=f"probability of {what}",
        y="share that was true",
        lines=(_line(said),),
        diagonal="calibrated",
        distance=error,
    )


def of_quantiles(name: str, found: Sequence[Bin]) -> Diagram:
    """How many true values lie below each quantile."""
    return Diagram(
        name="coverage",
        title="Coverage",
        says=f"How many of the true values of {name} lie below each quantile, with 95 % intervals;"
        " on the diagonal they are as many as the level says, and so the intervals between two"
        " levels hold what they promise.",
        x="level of the quantile",
        y="share of true values below",
        lines=(_line(found),),
        diagonal="as the level says",
    )


def confidences(
    positive: int | None, truth_B: np.ndarray, outputs_BC: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probability (B) of the positive, else of the most probable class; whether it was true (B)."""
    if positive is not None:
        return outputs_BC[:, positive], truth_B == positive
    return outputs_BC.max(1), truth_B == outputs_BC.argmax(1)


def bins(said_B: np.ndarray, is_B: np.ndarray) -> list[Bin]:
    """Rows by probability, in `BINS` of about equal counts; equal probabilities stay together."""
    edges = np.unique(np.quantile(said_B, np.linspace(0, 1, BINS + 1)[1:-1]))
    place_B = np.searchsorted(edges, said_B, "left")
    found = (place_B == place for place in range(len(edges) + 1))
    return [
        Bin(
            said=float(said_B[rows_B].mean()),
            was=float(is_B[rows_B].mean()),
            rows=int(rows_B.sum()),
        )
        for rows_B in found
        if rows_B.any()
    ]


def levels(level_C: Sequence[float], truth_B: np.ndarray, quantile_BC: np.ndarray) -> list[Bin]:
    """The share of true values up to each quantile."""
    below_C = (truth_B[:, None] <= quantile_BC).mean(0).tolist()
    return [
        Bin(said=said, was=was, rows=len(truth_B))
        for said, was in zip(level_C, below_C, strict=True)
    ]


def calibration_error(found: Sequence[Bin]) -> float:
    """Expected calibration error: mean distance of bins from the diagonal, weighted by rows."""
    return sum(one.rows * abs(one.said - one.was) for one in found) / sum(one.rows for one in found)


def of_values(name: str, truth_B: np.ndarray, value_B: np.ndarray) -> Iterator[Diagram]:
    """Prediction against truth, and the residuals."""
    places = np.linspace(0, len(truth_B) - 1, min(len(truth_B), MOST_MARKS)).astype(int)
    chosen = np.argsort(truth_B, kind="stable")[places]
    truth, value = truth_B[chosen].astype(float), value_B[chosen].astype(float)
    yield Diagram(
        name="predicted",
        title="Prediction and truth",
        says=f"Each mark is a row of the test part ({len(chosen):,} of {len(truth_B):,}); on the"
        " diagonal the prediction is right.",
        x=f"true {name}",
        y=f"predicted {name}",
        lines=(Line(name="rows", x=truth.tolist(), y=value.tolist()),),
        marks=True,
        diagonal="right",
    )
    order = np.argsort(value, kind="stable")
    yield Diagram(
        name="residuals",
        title="Residuals",
        says="Prediction minus truth; a slope or a funnel is what the model has not learned.",
        x=f"predicted {name}",
        y="prediction minus truth",
        lines=(Line(name="rows", x=value[order].tolist(), y=(value - truth)[order].tolist()),),
        marks=True,
    )


def _frequent(truth_B: np.ndarray, classes: int) -> list[int]:
    counts = np.bincount(truth_B, minlength=classes)
    often: list[int] = np.argsort(-counts, kind="stable")[:MOST_LINES].tolist()
    return often


def _curves(name: str, is_B: np.ndarray, score_B: np.ndarray) -> tuple[Line, Line]:
    """The ROC curve and the precision-recall curve of a class."""
    order = np.argsort(-score_B, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score_B[order]) != 0, True))
    hits = np.cumsum(is_B[order])[last]
    others = last + 1 - hits
    found, false = hits / hits[-1], others / max(1, others[-1])
    roc = _thinned(name, np.append(0.0, false), np.append(0.0, found))
    return roc, _thinned(name, found, hits / (last + 1))


def _thinned(name: str, x: np.ndarray, y: np.ndarray) -> Line:
    """At most `MOST_POINTS` of a curve's points, evenly spaced along it; the last one is kept."""
    along = np.append(0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    places = np.searchsorted(along, np.linspace(0, along[-1], MOST_POINTS))
    kept = np.unique(np.append(places.clip(0, len(x) - 1), len(x) - 1))
    return Line(name=name, x=x[kept].tolist(), y=y[kept].tolist())


def _line(found: Sequence[Bin]) -> Line:
    sides = [one.sides for one in found]
    return Line(
        name="share",
        x=[one.said for one in found],
        y=[one.was for one in found],
        low=[low for low, _ in sides],
        high=[high for _, high in sides],
    )
