"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from eagleray import messages
from eagleray.look import Template
from eagleray.reports import figures, findings, flow
from eagleray.reports.contents import Contents
from eagleray.spec import auto
from eagleray.state.evaluations import Ensemble, Estimate, Evaluation, Fairness
from eagleray.state.searches import Record

WORDS = {"fail": "Wrong", "warn": "Look at", "pass": "Fine", "error": "Wrong", "note": "Note"}
"""How severities are said, of a version and of data."""
BEST = 15
"""Trials of the leaderboard."""
TILES = 4
MOST_FACT = 300  # letters of a fact

Table = tuple[tuple[str, ...], Sequence[tuple[object, ...]], str]
"""Headings, rows, and what the table is."""


def page(of: Contents) -> bytes:
    """The whole report; text of the data is escaped."""
    template = Template("eagleray.reports", "page.html")
    return template.page(**_whole(of), **(_judged(of, of.evaluation) or _NOTHING)).html


def tiles(found: Evaluation) -> list[tuple[str, str, str]]:
    """The numbers that carry the report: name, value, interval."""
    names = [
        name for name in dict.fromkeys([found.metric, *found.telling]) if name in found.metrics
    ]
    return [_tile(name, found.metrics[name]) for name in names[:TILES]]


def metrics(found: Evaluation) -> Table:
    """Every metric with its interval, beside the champion and the baselines."""
    champion = found.champion if found.champion and found.champion.metrics else None
    others = [(one.name, one.metrics) for one in found.baselines]
    if champion is not None:
        others.insert(0, (f"version {champion.version}", champion.metrics))
    train = found.fit.train if found.fit else {}
    rows = [
        (
            name,
            one.value,
            one.sides(),
            train.get(name),
            *(known[name].value if name in known else None for _, known in others),
        )
        for name, one in found.metrics.items()
    ]
    headings = (
        "metric",
        "test part",
        "95 % interval",
        "training rows",
        *(name for name, _ in others),
    )
    return headings, rows, "Metrics"


def leaderboard(trials: Sequence[Record], metric: str) -> Table:
    """The best trials on the validation part, and whether each went to its end."""
    values = [auto.effective(one.values) for one in trials]
    keys = list(dict.fromkeys(key for one in values for key in one))
    rows = [
        (
            one.number,
            one.score,
            one.status,
            one.best_epoch,
            *(_drawn(own[key]) if key in own else "" for key in keys),
        )
        for one, own in zip(trials[:BEST], values[:BEST], strict=True)
    ]
    seen, length = f"{metric} (validation)", "best epoch"
    if any(one.folds > 1 for one in trials):
        seen, length = f"{metric} (mean of folds)", "folds"
    return ("trial", seen, "ended", length, *keys), rows, "Best trials"


def _whole(of: Contents) -> dict[str, object]:
    """What a report of a search without a version has too."""
    winner = of.version.manifest.get("lineage", {}).get("trial") if of.version else None
    drawn = (
        figures.learning(of.trials, of.metric, winner),
        figures.losses(of.trials, winner),
        flow.gradients(of.layers),
        figures.survival(of.trials),
        figures.worth(of.worth, of.metric),
    )
    return {
        "title": of.title,
        "sentence": _shortened(of),
        "findings": of.findings,
        "words": WORDS,
        "audit": of.audit,
        "unworthy": of.worth.why,
        "leaderboard": leaderboard(of.trials, of.metric) if of.trials else None,
        "search": [one for one in drawn if one is not None],
        "parallel": figures.parallel(of.trials, of.metric, winner),
        "facts": (("fact", "value"), _facts(of), "Facts"),
    }


_NOTHING: dict[str, object] = {
    **dict.fromkeys(("tiles", "slices", "confusion", "confused", "wrong", "metrics", "diagrams")),
    **dict.fromkeys(("members", "fairness", "beside", "important", "by_rows")),
    **dict.fromkeys(("groups", "miss", "classes")),
    "notes": [],
}


def _judged(of: Contents, found: Evaluation | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {
        "tiles": tiles(found),
        "beside": figures.beside(of.title, found),
        "slices": _slices(found) if found.slices else None,
        "groups": f"{found.groups:,}",
        "miss": found.miss,
        "confusion": found.confusion,
        "classes": found.classes,
        "confused": _confused(found) if found.confused else None,
        "diagrams": list(figures.of_diagrams(found)),
        "wrong": _wrong(found) if found.wrong else None,
        "fairness": [_fairness(found, one) for one in found.fairness],
        "members": _members(found.ensemble) if found.ensemble else None,
        "metrics": metrics(found),
        "important": figures.important(found),
        "by_rows": figures.by_rows(found),
        "notes": found.notes,
    }


def _tile(name: str, one: Estimate) -> tuple[str, str, str]:
    return name, messages.number(one.value, ".3g"), one.sides(".3g")


def _slices(found: Evaluation) -> Table:
    rows = [
        (
            findings.group(one),
            one.rows,
            one.miss.value,
            one.miss.sides(),
            one.others,
            findings.interval(one.score) if one.score else "",
        )
        for one in found.slices
    ]
    headings = ("group", "rows", "mean miss", "interval", "elsewhere", found.metric)
    return headings, rows, "Groups that are predicted worse"


def _members(found: Ensemble) -> Table | None:
    """The trials that the version is the mean of; None where it is one alone."""
    if not found.kept:
        return None
    rows = [
        (number, one.model, f"{one.weight:.0%}", one.score, one.epoch)
        for number, one in found.members.items()
    ]
    return ("trial", "model", "weight", "validation", "best epoch"), rows, "Members"


def _fairness(found: Evaluation, one: Fairness) -> Table:
    """Each group of a protected column, with the rates that any of them has."""
    rates = {
        found.metric: "score",
        "predicted positive": "positive",
        "true positive rate": "true_positive",
        "false positive rate": "false_positive",
        "mean error": "error",
    }
    shown = {name: key for name, key in rates.items() if any(getattr(g, key) for g in one.groups)}
    rows = [
        (
            group.name,
            group.rows,
            *(
                findings.interval(rate) if (rate := getattr(group, key)) else ""
                for key in shown.values()
            ),
        )
        for group in one.groups
    ]
    return ("group", "rows", *shown), rows, f"By {one.column}"


def _confused(found: Evaluation) -> Table:
    rows = [(one.truth, one.predicted, one.rows) for one in found.confused]
    return ("true", "predicted", "rows"), rows, "Most frequent mistakes"


def _wrong(found: Evaluation) -> Table:
    columns = list(found.wrong[0].values)
    rows = [
        (one.row, one.truth, one.prediction, one.miss, *(one.values.get(name) for name in columns))
        for one in found.wrong
    ]
    headings = ("row", f"true {found.target}", "predicted", "miss", *columns)
    return headings, rows, "The most wrong rows"


def _shortened(of: Contents) -> str:
    """The sentence below the title, which it need not repeat."""
    rest = of.sentence.removeprefix(f"{of.title} ")
    return rest[0].upper() + rest[1:]


def _facts(of: Contents) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [("model", of.name), ("search", of.search or "none")]
    if of.version is None:
        return rows
    manifest = of.version.manifest
    rows += [("version", str(of.version.number)), ("aliases", ", ".join(of.aliases) or "none")]
    rows += [("registered", of.version.created), ("by", of.version.by or "not on record")]
    for key in ("rows", "values", "configuration", "lineage", "made_with"):
        if known := manifest.get(key):
            rows.append((key.replace("_", " "), _value(known)[:MOST_FACT]))
    if of.evaluation is not None:
        rows.append(("looks at this test part", str(of.evaluation.looks or "not counted")))
    return rows


def _drawn(value: Any) -> str:
    """A value that was drawn, with as many digits as matter."""
    return messages.number(value) if isinstance(value, float) else _value(value)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
