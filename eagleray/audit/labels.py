"""Checks of the target: classes that are rare, labels that look wrong. Legend: B rows, C classes.

Confident learning: Northcutt, Jiang and Chuang 2021, arXiv:1911.00068.
"""

from collections.abc import Iterator

import numpy as np

from eagleray import messages
from eagleray.audit import estimates, residuals
from eagleray.audit.table import MOST_ROWS, MOST_SHOWN, Table
from eagleray.findings import Finding, noted, warned
from eagleray.learn import losses

RATIO = 20.0
"""Rows of the largest class for one of the smallest from which classes are imbalanced."""
WEIGHTED = "weighted_cross_entropy"
SURE_SHARES = (0.1, 0.33, 0.5)
"""Shares of the rows, the surest predictions, whose errors are compared."""
LEAST_NOISE, LEAST_SURE_NOISE = 0.008, 0.004
"""Share of errors among the surest third that tells wrong labels, and its lower bound."""
LEAST_SKILL, LEAST_SURE = 0.4, 15
"""Cohen's kappa of the models, and sure rows of the rarer classes, below which nothing is said."""
RARE, UNLIKELY_OF_FEW, UNLIKELY = 0.2, 0.2, 0.01
"""Share of the rows below which the rarer classes are few, and the probability of so few errors
among them, if labels are wrong, below which these are not told: of few, and of more."""
EASY_NOISE, MOST_NOISE, FLAT = 0.04, 0.15, 1.2
"""Largest share that tells them by itself, and largest one where errors do not grow by more than
this factor from the surest tenth to the surest half. More is a problem that is hard by itself."""
SUSPECTS = 2.0
"""Suspects for one wrong label that is expected."""
SMOOTHING = 0.05


def imbalance(table: Table) -> Iterator[Finding]:
    """A class that is much rarer than another."""
    if not table.classes:
        return
    names, train = table.schema.target.classes, table.targets[table.parts["training"]]
    counts = np.bincount(train, minlength=table.classes)
    small, large = int(counts.argmin()), int(counts.argmax())
    ratio = float(counts[large] / max(1, counts[small]))
    if ratio < RATIO:
        return
    share = float(counts[small] / counts.sum())
    handled = set(table.experiment.losses) - {"auto", type(table.task).loss}
    for key in ("class_weights", "sampling"):
        handled |= {one for one in map(str, table.experiment.options(key)) if one != "none"}
    fits = WEIGHTED in losses.fitting(type(table.task)) and not handled
    tell = noted if handled else warned
    yield tell(
        f"{table.schema.target.name}: {names[small]!r} has {messages.percent(share)} of the "
        f"training rows, 1 for {ratio:,.0f} of {names[large]!r}: accuracy says little, and the "
        "plain loss may never predict it",
        messages.setting({"train": {"loss": WEIGHTED}}).strip("`") if fits else "",
        evidence=tuple(
            f"{names[one]!r}: {counts[one]:,} training rows"
            for one in np.argsort(counts, kind="stable")[:MOST_SHOWN].tolist()
        ),
        numbers={"share": share, "ratio": ratio, "rows": int(counts[small])},
    )


def noise(table: Table) -> Iterator[Finding]:
    """Find labels that are probably wrong, by cross-validated predictions.

    Where a model is surest, errors of its own are rare; labels that are wrong by chance are as
    frequent there as anywhere.
    """
    if not table.classes:
        yield from residuals.wrong_numbers(table)
        return
    if (predicted_BC := table.predicted) is None:
        return
    label_B = table.targets[table.modelled]
    share = _share(predicted_BC, label_B)
    if share is None:
        return
    places = _suspects(predicted_BC, label_B, share)
    rows = table.modelled[places]
    likely = predicted_BC.argmax(axis=1)
    names, smooth = table.schema.target.classes, {"train": {"label_smoothing": SMOOTHING}}
    evidence = [
        f"looks like {names[likely[place]]!r} ({predicted_BC[place, likely[place]]:.2f}): {shown}"
        for place, shown in zip(places.tolist(), table.shown(rows), strict=False)
    ]
    count = round(share * len(table))
    yield warned(
        f"{table.schema.target.name}: about {messages.percent(share)} of the labels look wrong, "
        f"some {count:,} rows; the {len(places):,} most suspect ones are listed",
        messages.setting(smooth).strip("`") if _smooths(table) else "",
        evidence=(*table.scope(len(label_B)), *evidence),
        numbers={"share": share, "suspects": len(places)},
        rows=table.numbers(rows[:MOST_ROWS]),
    )


def _smooths(table: Table) -> bool:
    """Whether label smoothing has an effect under each loss of the file."""
    usual = type(table.task).loss
    names = [usual if name == "auto" else name for name in table.experiment.losses]
    return all(
        name in losses.REGISTRY and "label_smoothing" in losses.REGISTRY[name].options
        for name in names
    )


def _share(predicted_BC: np.ndarray, label_B: np.ndarray) -> float | None:
    """The share of wrong labels; None where errors are the model's own as well."""
    likely_B, surest = predicted_BC.argmax(axis=1), np.argsort(-predicted_BC.max(axis=1))
    wrong_B, classes = likely_B != label_B, predicted_BC.shape[1]
    if estimates.hits(label_B, likely_B, classes) < LEAST_SKILL:
        return None
    tenth, third, half = (wrong_B[surest[: int(len(label_B) * one)]] for one in SURE_SHARES)
    share = float(third.mean())
    if (
        share < LEAST_NOISE
        or estimates.lower_bound(int(third.sum()), len(third)) < LEAST_SURE_NOISE
    ):
        return None
    rare = surest[likely_B[surest] != np.bincount(likely_B).argmax()]
    if _spared(wrong_B[rare[: len(rare) // 2]], share, few=len(rare) < RARE * len(label_B)):
        return None
    flat = float(half.mean()) <= FLAT * float(tenth.mean())
    return share if share <= (MOST_NOISE if flat else EASY_NOISE) else None


def _suspects(predicted_BC: np.ndarray, label_B: np.ndarray, share: float) -> np.ndarray:
    """The most suspect rows, the worst first.

    A label is off the confident joint's diagonal if another class has at least the probability
    that rows of that class have on average.
    """
    row_B = np.arange(len(label_B))
    given_B = predicted_BC[row_B, label_B]
    others_BC = predicted_BC.copy()
    others_BC[row_B, label_B] = -1.0
    count = np.bincount(label_B, minlength=predicted_BC.shape[1])
    usual_C = np.bincount(label_B, given_B, minlength=len(count)) / np.maximum(1, count)
    confident_B = np.where(predicted_BC >= usual_C, predicted_BC, -1.0).argmax(axis=1) != label_B
    confident_B &= (others_BC >= usual_C).any(axis=1)
    order = np.argsort(given_B - others_BC.max(axis=1), kind="stable")
    most = max(int(confident_B.sum()), round(SUSPECTS * share * len(label_B)))
    return order[:most]


def _spared(wrong_B: np.ndarray, share: float, *, few: bool) -> bool:
    """Whether the surest rows of the rarer classes have fewer errors than wrong labels give them.

    Then errors elsewhere are rows of a rare class that look like the most frequent one.
    """
    from scipy.stats import binom

    unlikely = UNLIKELY_OF_FEW if few else UNLIKELY
    errors = int(wrong_B.sum())
    return len(wrong_B) < LEAST_SURE or bool(binom.cdf(errors, len(wrong_B), share) < unlikely)
