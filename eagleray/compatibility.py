"""Whether clients of one version can use another: two schemas compared.

A change breaks clients when a request that was valid is refused, or an answer has another form.
`serving.protocol` defines which requests a schema allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from eagleray import errors, messages
from eagleray.learn import tasks
from eagleray.learn.schema import Column, ExtraFields, Schema, Target

if TYPE_CHECKING:
    from eagleray.state.models import Registry, Version


@dataclass(frozen=True)
class Change:
    """One difference of two schemas.

    `before` is empty where it is new, `after` where it is gone. `breakage` is what clients notice,
    empty where it breaks none.
    """

    what: str
    before: str
    after: str
    breakage: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.before or 'none'} → {self.after or 'none'}: {self.breakage}"


def check(registry: Registry, alias: str, before: Version, after: Version) -> None:
    """Raise UserError if version `after` breaks clients of version `before`."""
    found = compare(registry, before, after)
    if breaking := [str(change) for change in found if change.breakage]:
        raise errors.UserError(
            f"model {after.name}: {alias} must answer clients of version {before.number}, but "
            f"version {after.number} has another schema: {'; '.join(breaking)}. Change the "
            "clients, then promote it with --allow-schema-change"
        )


def schema(registry: Registry, version: Version) -> Schema | None:
    """The schema of a version, None for files without a bundle; CorruptObjectError if damaged."""
    described = _described(registry, version)
    return described[0] if described else None


def compare(registry: Registry, before: Version, after: Version) -> list[Change]:
    """The differences of two versions; none where one of them has no bundle."""
    old, new = _described(registry, before), _described(registry, after)
    if old is None or new is None:
        return []
    return changes(old[0], new[0], extra_fields=(old[1], new[1]))


def changes(
    before: Schema,
    after: Schema,
    *,
    extra_fields: tuple[ExtraFields, ExtraFields] = ("refuse", "refuse"),
) -> list[Change]:
    """The differences, columns first; `extra_fields` are those of both versions."""
    old, new = ({column.name: column for column in one.columns} for one in (before, after))
    ignored, found = extra_fields[1] == "ignore", list[Change]()
    for name in dict.fromkeys([*old, *new]):
        found += _column(name, old.get(name), new.get(name), ignored=ignored)
    if extra_fields[0] != extra_fields[1]:
        breakage = "" if ignored else "requests with fields that are no columns are refused"
        found.append(Change("extra fields", *extra_fields, breakage))
    return [*found, *_target(before.target, after.target)]


def _described(registry: Registry, version: Version) -> tuple[Schema, ExtraFields] | None:
    """A version's schema, and what it does with fields that are no columns."""
    if "bundle.json" not in version.files:
        return None
    try:
        described = json.loads(registry.read(version, "bundle.json"))
        known = Schema.model_validate(described["schema"])
    except (ValueError, KeyError, TypeError) as cause:
        where = f"model {version.name}, version {version.number}"
        raise errors.CorruptObjectError(f"{where}: must have a schema, but {cause}") from cause
    return known, "ignore" if described.get("extra_fields") == "ignore" else "refuse"


def _column(
    name: str, old: Column | None, new: Column | None, *, ignored: bool
) -> Iterator[Change]:
    gone = new is None and ignored  # its values are ignored from now on
    breakage = "" if gone else _column_breakage(old, new)
    if breakage or _kind(old) != _kind(new):
        yield Change(f"column {name}", _kind(old), _kind(new), breakage)
    if old is not None and new is not None and old.type == new.type:
        yield from _properties(f"column {name}", old, new)


def _column_breakage(old: Column | None, new: Column | None) -> str:
    if new is None:
        return "requests that have it are refused"
    if old is None:
        return "" if new.nullable else "requests that lack it are refused"
    if old.type != new.type and not (old.kind.takes_any_text and new.kind.takes_any_text):
        return f"a value must be {new.type}"
    if old.nullable and not new.nullable:
        return "requests that lack a value are refused"
    return _numbers_refused(old, new) if old.type != new.type else ""


def _properties(what: str, old: Column, new: Column) -> Iterator[Change]:
    """Changes of a column that keeps its type."""
    if old.missing != new.missing:
        gone = sorted(set(old.missing) - set(new.missing))
        refused = gone and not old.kind.takes_any_text  # in a text the mark becomes a value
        breakage = f"the mark {', '.join(gone)} is refused" if refused else ""
        yield Change(f"{what} missing", ", ".join(old.missing), ", ".join(new.missing), breakage)
    if old.decimal_comma != new.decimal_comma:
        before, after = ("comma" if one.decimal_comma else "point" for one in (old, new))
        yield Change(f"{what} decimal", before, after, "numbers written as text are read otherwise")
    if old.written != new.written:
        breakage = "dates in the format before are refused" if old.written else ""
        yield Change(f"{what} format", old.written or "", new.written or "", breakage)
    if old.image_shape != new.image_shape:  # pictures are scaled, but keep their channels
        sizes = old.image_shape or (), new.image_shape or ()
        same = sizes[0][:1] == sizes[1][:1]
        breakage = "" if same else "pictures with other channels are refused"
        before, after = map(_shape, sizes)
        yield Change(f"{what} shape", before, after, breakage)
    if old.categories != new.categories:  # an unknown category is answered, with a warning
        fewer, more = _only(old.categories or (), new.categories or ())
        fewer = "more than are listed" if old.categories is None else fewer
        more = "more than are listed" if new.categories is None else more
        yield Change(f"{what} categories", fewer, more, _numbers_refused(old, new))


def _numbers_refused(old: Column, new: Column) -> str:
    takes = [float in get_args(column.kind.wire(column)) for column in (old, new)]
    return "numbers without quotes are refused" if takes == [True, False] else ""


def _target(old: Target, new: Target) -> Iterator[Change]:
    if old.name != new.name:
        yield Change("target", old.name, new.name)
    same_form = _form(old) == _form(new)
    if old.task != new.task:
        breakage = "" if same_form else "an answer has another form"
        yield Change("task", old.task, new.task, breakage)
    if same_form and set(old.classes) != set(new.classes):
        other = old.model_copy(update={"classes": new.classes})
        named = _answers(old) != _answers(other)  # not where items are recommended
        breakage = "an answer has other labels and probabilities" if named else ""
        yield Change("classes", *_only(old.classes, new.classes), breakage)
    elif same_form and old.classes != new.classes:  # clients of tensors read it in the metadata
        before, after = (messages.listed(one.classes, 5) for one in (old, new))
        yield Change("order of classes", before, after)
    if same_form and old.quantiles != new.quantiles:
        before, after = (", ".join(map(str, one.quantiles)) for one in (old, new))
        yield Change("quantiles", before, after, "an answer has other quantiles")
    if old.user and (old.user, old.k) != (new.user, new.k):
        before, after = (f"{one.k} for each {one.user}" for one in (old, new))
        yield Change("recommended items", before, after)
    if old.threshold != new.threshold:
        yield Change("threshold", *(_threshold(one.threshold) for one in (old, new)))
    if old.costs != new.costs:
        yield Change("costs of mistakes", *("set" if one.costs else "none" for one in (old, new)))


def _threshold(value: float | None) -> str:
    return "most probable class" if value is None else f"{value:.4g}"


def _form(target: Target) -> dict[str, object]:
    """The JSON type of each value of an answer."""
    return {key: value["type"] for key, value in _answers(target).items()}


def _answers(target: Target) -> dict[str, Any]:
    return tasks.of(target).answer_schema()


def _kind(column: Column | None) -> str:
    if column is None:
        return ""
    return f"{column.type}, may be missing" if column.nullable else column.type


def _shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _only(old: Sequence[str], new: Sequence[str]) -> tuple[str, str]:
    return _listed(set(old) - set(new)), _listed(set(new) - set(old))


def _listed(names: set[str]) -> str:
    return f"only {messages.listed(sorted(names), 5)}" if names else ""
