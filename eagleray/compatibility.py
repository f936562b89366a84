"""Whether a client of one version can go on with another: two schemas compared.

A change breaks clients when a request that was valid is refused, or an answer has another form.
What a request may hold follows from the schema as `serving.protocol` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from eagleray import errors
from eagleray.learn import tasks
from eagleray.learn.schema import Column, Schema, Target

if TYPE_CHECKING:
    from eagleray.state.models import Registry, Version

_NAMED = 5


@dataclass(frozen=True)
class Change:
    """One difference of two schemas.

    Attributes:
        what: `column age`, or a fact about it or the target.
        before: in words; empty where it is new.
        after: in words; empty where it is gone.
        notice: what clients notice; empty when they do not.
    """

    what: str
    before: str
    after: str
    notice: str = ""

    @property
    def breaks(self) -> bool:
        """Whether clients notice."""
        return bool(self.notice)

    def __str__(self) -> str:
        return f"{self.what}: {self.before or 'none'} → {self.after or 'none'}: {self.notice}"


def check(registry: Registry, alias: str, before: Version, after: Version) -> None:
    """Refuse a version that clients of another one cannot go on with.

    Raises:
        UserError: clients would notice.
        CorruptObjectError: one of the bundles has no schema.
    """
    old, new = schema(registry, before), schema(registry, after)
    if old is None or new is None:
        return
    if breaking := [str(change) for change in changes(old, new) if change.breaks]:
        raise errors.UserError(
            f"model {after.name}: {alias} must answer clients of version {before.number}, but "
            f"version {after.number} has another schema: {'; '.join(breaking)}. Change the "
            "clients, then promote it with --allow-schema-change"
        )


def schema(registry: Registry, version: Version) -> Schema | None:
    """The schema of a version; None of one that is no bundle.

    Raises:
        CorruptObjectError: the bundle has none.
    """
    if "bundle.json" not in version.files:
        return None
    try:
        return Schema.model_validate(json.loads(registry.read(version, "bundle.json"))["schema"])
    except (ValueError, KeyError, TypeError) as cause:
        where = f"model {version.name}, version {version.number}"
        raise errors.CorruptObjectError(f"{where}: must have a schema, but {cause}") from cause


def changes(before: Schema, after: Schema) -> list[Change]:
    """Give what differs, the columns first."""
    old, new = ({column.name: column for column in one.columns} for one in (before, after))
    found: list[Change] = []
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            notice = "requests that have it are refused"
            found.append(Change(f"column {name}", _words(old[name]), "", notice))
        elif name not in old:
            notice = "" if new[name].nullable else "requests that lack it are refused"
            found.append(Change(f"column {name}", "", _words(new[name]), notice))
        else:
            found += _column(old[name], new[name])
    return [*found, *_target(before.target, after.target)]


def _column(old: Column, new: Column) -> Iterator[Change]:
    what = f"column {old.name}"
    if old.type != new.type:
        yield Change(what, _words(old), _words(new), _retyped(old, new))
        return
    if old.nullable != new.nullable:
        notice = "" if new.nullable else "requests that lack a value are refused"
        yield Change(what, _words(old), _words(new), notice)
    if old.missing != new.missing:
        gone = sorted(set(old.missing) - set(new.missing))
        read = not old.kind.takes_any_text  # in a text such a mark becomes a value like any other
        notice = f"the mark {', '.join(gone)} is refused" if gone and read else ""
        yield Change(f"{what} missing", ", ".join(old.missing), ", ".join(new.missing), notice)
    if old.written != new.written:
        notice = "dates in the format before are refused" if old.written else ""
        yield Change(f"{what} format", old.written or "", new.written or "", notice)
    if old.image_shape != new.image_shape:
        yield _pictured(what, old.image_shape or (), new.image_shape or ())
    if old.categories != new.categories:
        yield _categorised(what, old, new)


def _retyped(old: Column, new: Column) -> str:
    if old.kind.takes_any_text and new.kind.takes_any_text:
        lacking = old.nullable and not new.nullable
        return "requests that lack a value are refused" if lacking else _numbers_refused(old, new)
    return f"a value must be {new.type}"


def _numbers_refused(old: Column, new: Column) -> str:
    lost = _takes_numbers(old) and not _takes_numbers(new)
    return "numbers without quotes are refused" if lost else ""


def _takes_numbers(column: Column) -> bool:
    return float in get_args(column.kind.wire(column))


def _pictured(what: str, old: tuple[int, ...], new: tuple[int, ...]) -> Change:
    """Pictures are scaled to a model's height and width; their channels must be its own."""
    notice = "pictures with other channels are refused" if old[:1] != new[:1] else ""
    return Change(f"{what} shape", " x ".join(map(str, old)), " x ".join(map(str, new)), notice)


def _categorised(what: str, old: Column, new: Column) -> Change:
    """A category that a version has not seen is answered, with a warning."""
    sides = set(old.categories or ()), set(new.categories or ())
    gone, added = sorted(sides[0] - sides[1]), sorted(sides[1] - sides[0])
    listed = ["more than are listed" if one.categories is None else "" for one in (old, new)]
    return Change(
        f"{what} categories",
        listed[0] or _some("only", gone),
        listed[1] or _some("only", added),
        _numbers_refused(old, new),
    )


def _target(old: Target, new: Target) -> Iterator[Change]:
    if old.name != new.name:
        yield Change("target", old.name, new.name)
    same_form = _form(old) == _form(new)
    if old.task != new.task:
        notice = "" if same_form else "an answer has another form"
        yield Change("task", old.task, new.task, notice)
    if not same_form or set(old.classes) == set(new.classes):
        return
    gone = sorted(set(old.classes) - set(new.classes))
    added = sorted(set(new.classes) - set(old.classes))
    notice = "an answer has other labels and probabilities"
    yield Change("classes", _some("only", gone), _some("only", added), notice)


def _form(target: Target) -> dict[str, object]:
    """The values of an answer, and their types."""
    described = tasks.of(target).answer_schema()
    return {key: value["type"] for key, value in described.items()}


def _words(column: Column) -> str:
    return f"{column.type}, may be missing" if column.nullable else column.type


def _some(word: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{word} {', '.join(names[:_NAMED])}{rest}"
