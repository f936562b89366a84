"""The champion on the winner's test part: the same rows, by paired bootstrap."""

from dataclasses import dataclass

from eagleray import bundle, errors, evaluation
from eagleray.learn import schema
from eagleray.state.aliases import CHAMPION
from eagleray.state.evaluations import Comparison
from eagleray.state.models import Registry


@dataclass(frozen=True)
class Rows:
    """A winner on its test part, whose canonical columns these are."""

    ours: evaluation.Judged
    metric: str
    known: schema.Schema
    columns: schema.Columns
    remembered: evaluation.Part | None = None  # what a model that remembers is to leave out


def champion(registry: Registry, name: str, lineage: object, rows: Rows) -> Comparison | None:
    """Compare with the version that is champion now; None if there is none, or it is this one.

    A champion that cannot predict these rows gives a comparison that says why, without a verdict.
    """
    number = registry.aliases(name).values.get(CHAMPION)
    if number is None:
        return None
    try:
        version = registry.version(name, number)
        if version.manifest.get("lineage") == lineage:
            return None
        loaded = bundle.load(registry, version)
        if why := _misfit(loaded.schema, rows):
            return Comparison(version=number, why=why)
        if rows.remembered is not None:
            loaded.remember(rows.remembered.columns, rows.remembered.truth_B, only=True)
        outputs = loaded.predict_columns(rows.columns).outputs
        theirs = rows.ours.beside(outputs, target=loaded.schema.target)
        return _judged(number, theirs, rows)
    except errors.StorageUnavailableError:
        raise
    except errors.EagleRayError as cause:
        return Comparison(version=number, why=str(cause))
    except Exception as cause:  # noqa: BLE001 - of code of its own; the search has ended well
        why = f"it cannot predict these rows: {type(cause).__name__}: {cause}"
        return Comparison(version=number, why=why)


def _judged(number: int, theirs: evaluation.Judged, rows: Rows) -> Comparison:
    verdict = evaluation.verdict(rows.ours, theirs, rows.metric)
    why = "" if verdict else f"these rows do not define {rows.metric} for both versions"
    found = evaluation.estimates(theirs)
    return Comparison(version=number, verdict=verdict, metrics=found, why=why)


def _misfit(theirs: schema.Schema, rows: Rows) -> str:
    """Why a model of this schema cannot predict the rows; empty if it can."""
    known, target = theirs.target, rows.ours.target
    if _predicted(known) != _predicted(target):
        return f"it predicts {_described(known)}, this version {_described(target)}"
    if known.k != target.k:
        return f"it recommends {known.k} items, this version {target.k}"
    types = {one.name: (one.type, one.image_shape) for one in rows.known.columns}
    for one in theirs.columns:
        if one.name not in types:
            return f"it needs the column {one.name}, which the data lack"
        if (one.type, one.image_shape) != types[one.name]:
            return f"its column {one.name} is {one.type}, in the data it is {types[one.name][0]}"
    return ""


def _predicted(target: schema.Target) -> tuple[object, ...]:
    return target.task, target.classes, target.quantiles


def _described(target: schema.Target) -> str:
    named = target.classes[:3] or map(str, target.quantiles)
    return f"{target.task} of {', '.join(named) or target.name}"
