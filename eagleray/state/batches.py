"""Batches: predictions of files, in parts below a folder that is theirs alone.

A part is an object, written at once; its record, written after it, says that it is finished. The
result is written last, over all parts. All of it follows from the plan: a second writer of a part
finds the same one there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import pydantic

from eagleray import errors
from eagleray.state import documents, keys
from eagleray.storage import Storage

Format = Literal["parquet", "csv"]
Place = tuple[int, int]
"""A part: the number of its file, and its own within the file; both from 0."""


@dataclass(frozen=True)
class Options:
    """How files are predicted.

    Attributes:
        format: of the parts.
        keep: columns of the input beside the answers; None for all.
        rows_per_part: None for 50,000, or fewer where these have more than 64 MiB.
        max_errors: the most rows that cannot be predicted: a number, or a share such as `5%`.
    """

    format: Format = "parquet"
    keep: tuple[str, ...] | None = None
    rows_per_part: int | None = None
    max_errors: str = "10%"

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            law = f"must be {' or '.join(get_args(Format))}"
            raise errors.UserError(f"--format: {law}, but got {self.format!r}")
        if self.rows_per_part is not None and self.rows_per_part < 1:
            got = self.rows_per_part
            raise errors.UserError(f"--rows-per-part: at least 1 is needed, but got {got}")


class Input(pydantic.BaseModel, frozen=True):
    """A file of the input."""

    name: str  # a path, or `s3://bucket/key`
    size: int  # in bytes
    version: str  # the ETag of an object, the time of a file's last change


class Plan(documents.Document, frozen=True):
    """What is predicted, by what, and how it is written."""

    KIND = "batch-plan"

    model: str
    version: int
    digest: str  # of the version's files
    inputs: tuple[Input, ...]
    keep: tuple[str, ...]  # columns of the input beside the answers
    output_format: Format = "parquet"
    rows_per_part: int


class Request(documents.Document, frozen=True):
    """A batch that was sent to a cluster: its plan is in the output."""

    KIND = "batch-run"

    output: str  # URI
    max_errors: str  # as in `Options`


class Part(documents.Document, frozen=True):
    """A finished part."""

    KIND = "batch-part"

    file: int
    number: int
    last: bool  # of its file
    rows: int
    errors: int = 0  # rows that could not be predicted
    warnings: int = 0  # rows with warnings
    error: str = ""  # the first one
    etag: str

    @property
    def place(self) -> Place:
        return self.file, self.number


class Result(documents.Document, frozen=True):
    """What a batch has written."""

    KIND = "batch-result"

    model: str
    version: int
    rows: int
    errors: int
    warnings: int
    parts: tuple[dict[str, str | int], ...]  # key, rows, errors, warnings and etag
    inputs: tuple[Input, ...]
    plan: dict[str, object]  # the options that parts depend on


class Batch:
    """The documents and parts below one folder of predictions."""

    def __init__(self, store: Storage) -> None:
        self.store = store

    def begin(self, plan: Plan) -> None:
        """Write the plan, or find the same one there.

        ConflictError if there are predictions of another plan, UserError for other objects.
        """
        known = Plan.find(self.store, keys.BATCH_PLAN)
        if known is None and (foreign := next(self.store.list(), None)) is not None:
            law = "the output must be a new folder, or that of the same predictions"
            raise errors.UserError(f"{self.store.uri}: {law}, but it holds {foreign.key}")
        if known is None:
            try:
                self.store.put_if_absent(keys.BATCH_PLAN, plan.encode())
                return
            except errors.ObjectExistsError:  # another driver was quicker
                known = Plan.read(self.store, keys.BATCH_PLAN)
        if changes := differences(known, plan):
            law = "the output holds predictions that began otherwise"
            raise errors.ConflictError(
                f"{self.store.uri}: {law}: {'; '.join(changes)}; choose another folder, or the"
                " same input, version and options"
            )

    def parts(self) -> dict[Place, Part]:
        """The finished parts."""
        found = [one.key for one in self.store.list(keys.BATCH_RECORDS)]
        records = documents.read_all(lambda key: Part.read(self.store, key), found)
        return {one.place: one for one in sorted(records, key=lambda one: one.place)}

    def part(self, place: Place) -> Part | None:
        """A finished part; None where it is not finished."""
        return Part.find(self.store, _record_key(place))

    def result(self) -> Result | None:
        """The result; None until all parts are finished."""
        return Result.find(self.store, keys.BATCH_RESULT)

    def put_part(self, plan: Plan, place: Place, data: bytes) -> str:
        """Write a part unless it is there; return its etag."""
        key = part_key(plan, place)
        try:
            return self.store.put_if_absent(key, data)
        except errors.ObjectExistsError:
            return self.store.get_tagged(key)[1]

    def record(self, part: Part) -> None:
        """Say that a part is finished."""
        self.store.put(_record_key(part.place), part.encode())

    def finish(self, plan: Plan, parts: Mapping[Place, Part]) -> Result:
        """Write the result of all parts."""
        done = [parts[place] for place in sorted(parts)]
        listed = tuple(
            {"key": part_key(plan, one.place), **one.model_dump(include=_LISTED)} for one in done
        )
        result = Result(
            model=plan.model,
            version=plan.version,
            rows=sum(one.rows for one in done),
            errors=sum(one.errors for one in done),
            warnings=sum(one.warnings for one in done),
            parts=listed,
            inputs=plan.inputs,
            plan=plan.model_dump(mode="json", exclude={"inputs", "model", "version"}),
        )
        self.store.put(keys.BATCH_RESULT, result.encode())
        return result


_LISTED = {"rows", "errors", "warnings", "etag"}


def part_key(plan: Plan, place: Place) -> str:
    """The key of a part."""
    file, number = place
    return keys.BATCH_PART.format(file=file, number=number, format=plan.output_format)


def differences(before: Plan, now: Plan) -> list[str]:
    """What two plans differ in, as sentences."""
    found = [
        f"{name} was {old}, but is {new}"
        for name, old, new in (
            ("the model", before.model, now.model),
            ("the version", before.version, now.version),
            ("the format", before.output_format, now.output_format),
            ("the number of rows of a part", before.rows_per_part, now.rows_per_part),
            ("the kept columns", ", ".join(before.keep), ", ".join(now.keep)),
        )
        if old != new
    ]
    if not found and before.digest != now.digest:
        found.append(f"version {now.version} of {now.model} is another one, of another storage")
    return found + list(_changed_inputs(before, now))


def _record_key(place: Place) -> str:
    file, number = place
    return keys.BATCH_RECORD.format(file=file, number=number)


def _changed_inputs(before: Plan, now: Plan) -> list[str]:
    olds, news = ({one.name: one for one in plan.inputs} for plan in (before, now))
    words = {
        "is gone": sorted(olds.keys() - news.keys()),
        "is new": sorted(news.keys() - olds.keys()),
        "has changed": sorted(
            name for name in olds.keys() & news.keys() if olds[name] != news[name]
        ),
    }
    return [
        f"{names[0]} {word}" + (f", and {len(names) - 1} more" if len(names) > 1 else "")
        for word, names in words.items()
        if names
    ]
