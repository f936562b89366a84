"""What an evaluation says in words: one sentence, what is wrong, and what is fine."""

from collections.abc import Iterator

from eagleray import messages
from eagleray.findings import Finding, failed, passed, warned
from eagleray.state.evaluations import Baseline, Comparison, Estimate, Evaluation, Slice

MOST_LOOKS = 3
"""Looks at a test part from which on its metrics are taken with doubt."""
MISCALIBRATED = 0.05  # mean distance of said probabilities from what was true


def sentence(title: str, found: Evaluation) -> str:
    """What the version can do, and whether it is better than the champion."""
    ours = found.metrics.get(found.metric)
    score = f"{found.metric} {interval(ours)}" if ours else f"{found.metric} is not defined"
    can = found.headline or f"has {score}"
    beside = f"; {against(found, found.champion)}" if found.champion else ""
    return f"{title} {can}{beside}."


def against(found: Evaluation, other: Comparison) -> str:
    """Whether a version is better than the champion, and by how much."""
    champion = f"version {other.version}, the champion"
    if other.verdict is None:
        return f"not compared with {champion}: {other.why}"
    sides = other.verdict.difference.between(".3g", flipped=found.mode == "min")
    gap = messages.number(abs(other.verdict.difference.value), ".3g")
    by = f"{gap} {found.metric}{sides}"
    if other.verdict.outcome == "no difference":
        return f"no different from {champion}, beyond noise (off by {by})"
    return f"{other.verdict.outcome} than {champion}, by {by}"


def of(found: Evaluation) -> Iterator[Finding]:
    """Yield what is wrong, the worst first, then what is fine."""
    every = [
        *(failed(f"It {one}.") for one in found.warnings),
        *(_baseline(found, one) for one in found.baselines),
        *_champion(found),
        *_fit(found),
        *found.training,
        *_rows(found),
        *_latency(found),
        *_slices(found),
        *_fairness(found),
        *_calibration(found),
        *_intervals(found),
        _looks(found),
    ]
    order = ("fail", "warn", "pass")
    yield from sorted(every, key=lambda one: order.index(one.severity))


def interval(estimate: Estimate) -> str:
    """Format a value with its interval, such as `0.912 (0.89 to 0.93)`."""
    sides = estimate.sides()
    value = messages.number(estimate.value)
    return f"{value} ({sides})" if sides else value


def group(one: Slice) -> str:
    """`city is Oslo and age is 62 to 80`."""
    return " and ".join(f"{column} is {value}" for column, value in one.where.items())


def _baseline(found: Evaluation, one: Baseline) -> Finding:
    if one.verdict is None:
        return warned(
            f"No comparison with {one.name}: {found.metric} is not defined on these rows."
        )
    verdict, name = one.verdict, f"a baseline, {one.name}"
    sides = verdict.difference.between(".3g", flipped=found.mode == "min")
    gap = messages.number(abs(verdict.difference.value), ".3g")
    by = f"by {gap} {found.metric}{sides}"
    if verdict.outcome == "better":
        return passed(f"It beats {name}, {by}.")
    fix = "more trials, other models or features; or take the baseline"
    if verdict.outcome == "worse":
        return failed(f"It is worse than {name}, {by}.", fix=fix)
    return warned(
        f"It does not beat {name}, beyond noise: {found.metric} differs by {gap}{sides}.",
        fix=fix,
    )


def _champion(found: Evaluation) -> Iterator[Finding]:
    if found.champion is None:
        return
    verdict = found.champion.verdict
    say = passed if verdict and verdict.outcome == "better" else warned
    yield say(f"It is {against(found, found.champion)}.")


def _fit(found: Evaluation) -> Iterator[Finding]:
    if found.fit is None:
        return
    if found.fit.sign == "none":
        yield passed(f"Training: {found.fit.says}.")
    else:
        check, says = found.fit.sign, f"It is {found.fit.sign}: {found.fit.says}."
        yield warned(says, check=check, fix=found.fit.fix)


def _rows(found: Evaluation) -> Iterator[Finding]:
    curve = found.learning_curve
    if curve is None:
        return
    check, says = "learning curve", curve.says
    if curve.outcome == "helps":
        yield warned(f"More data would help: {says}.", check=check, fix="more training rows")
    elif curve.outcome == "hardly":
        yield passed(f"More rows would hardly help: {says}.", check=check)
    else:
        yield passed(f"Whether more rows would help is not clear: {says}.", check=check)


def _latency(found: Evaluation) -> Iterator[Finding]:
    one = found.latency
    if one is not None:
        say = warned if one.over else passed
        yield say(f"It {one}.", check="latency", fix=one.fix)


def _slices(found: Evaluation) -> Iterator[Finding]:
    for one in found.slices[:3]:
        yield warned(
            f"It is worse where {group(one)} ({one.rows:,} rows): {found.miss} is"
            f" {interval(one.miss)} there, {messages.number(one.others)} elsewhere.",
            fix="look at these rows; more of them in training, or a feature that tells them apart",
        )
    if found.groups and not found.slices:
        many = f"{found.groups:,} groups of rows"
        yield passed(f"None of {many} is worse than the others, beyond noise.")


def _fairness(found: Evaluation) -> Iterator[Finding]:
    for one in found.fairness:
        if any(gap.sure for gap in one.gaps):
            fix = "look at the rows and targets of the group; more of its rows in training"
            yield warned(f"Its predictions differ {one}.", fix=fix)
        elif one.gaps:
            yield passed(f"Its predictions do not differ beyond noise {one}.")
        else:
            yield passed(f"Its predictions are not compared {one}.")


def _calibration(found: Evaluation) -> Iterator[Finding]:
    for one in found.diagrams:
        if one.distance is None:
            continue
        says = f"Its probabilities are off by {one.distance:.3f} on average"
        if one.distance > MISCALIBRATED:
            fix = "" if found.calibration else "decide.calibrate: temperature"
            yield warned(f"{says}, see {one.title}.", fix=fix)
        else:
            yield passed(f"{says}.")


def _intervals(found: Evaluation) -> Iterator[Finding]:
    for one in found.intervals:
        high = one.coverage.high
        if high is not None and high < one.level:
            fix = "" if found.calibration else "decide.calibrate: conformal"
            yield warned(f"Its {one}: fewer than it says.", fix=fix)
        else:
            yield passed(f"Its {one}.")


def _looks(found: Evaluation) -> Finding:
    if not found.looks:
        return passed("Looks at its test part were not counted.")
    if found.looks < MOST_LOOKS:
        return passed(f"This was look {found.looks} at its test part of {found.rows:,} rows.")
    return warned(
        f"This was look {found.looks} at its test part of {found.rows:,} rows: who chooses among"
        " as many results finds a lucky one, and intervals do not account for it.",
        fix="draw another test part (data.seed), or keep newer rows for a last look",
    )
