"""From a table of raw values to a schema: the rows and columns to learn from, and the target."""

import contextlib
import dataclasses
import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eagleray import errors, messages, names, spec
from eagleray.learn import columns, features, repeats, schema, tasks
from eagleray.learn.columns import CATEGORICAL, NUMERIC, ColumnKind, values
from eagleray.learn.columns.arrow import SAMPLE, Texts
from eagleray.learn.columns.words import hints_at_identifier
from eagleray.learn.schema import Column, Columns, Schema
from eagleray.tabular import inference
from eagleray.tabular.delimited import header_hint

Table = dict[str, schema.Raw]
Features = Mapping[str, spec.FeatureOptions]

FEW_ROWS = 20  # minimum rows for distinct or consecutive values to make a column an identifier
MOST_SHOWN = 20  # maximum number of columns that a message lists


@dataclass(frozen=True)
class Learnable:
    """The rows and columns of a table that a model can learn from."""

    schema: Schema
    columns: Columns  # canonical, of the B rows that are left
    targets: np.ndarray  # see `tasks.Task.encode`
    label: Column  # how the target is read in a table
    rows: np.ndarray  # number of each row in the source (B), from 1
    groups: np.ndarray | None  # a name for each row (B), with `data.split.group`
    times: np.ndarray | None  # a number for each row (B), with `data.split.time`
    notes: tuple[str, ...]  # sentences on what is left out or looks odd
    keys: tuple[inference.Inferred, ...] = ()  # columns that only identify rows, left out
    spellings: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)  # by column
    items: tuple[inference.Inferred, ...] = ()  # columns that describe the target, not an input
    protected: tuple[inference.Inferred, ...] = ()  # columns whose groups are compared

    @property
    def marks(self) -> tuple[np.ndarray, ...]:
        """The group and the time of each row (B) that the split goes by."""
        return tuple(one for one in (self.groups, self.times) if one is not None)


def without_duplicates(table: Learnable) -> Learnable:
    """The rows that repeat no earlier one but by chance, and a note on how many are left out."""
    inputs = ((column, table.columns[column.name]) for column in table.schema.columns)
    keys = (one.array for one in table.keys)
    rows = repeats.rows(inputs, [table.targets, *keys, *table.marks])
    alike, left = (int(np.count_nonzero(one)) for one in (rows.alike_B, rows.repeated_B))
    if not alike:
        return table
    keep_B = ~rows.repeated_B
    note = (
        f"data.duplicates: {left:,} of {len(keep_B):,} rows repeat an earlier one, and are left out"
    )
    if alike > left:
        note += f"; {alike - left:,} others may repeat one by chance, and stay"
    return dataclasses.replace(
        table,
        columns={name: array[keep_B] for name, array in table.columns.items()},
        targets=table.targets[keep_B],
        rows=table.rows[keep_B],
        groups=None if table.groups is None else table.groups[keep_B],
        times=None if table.times is None else table.times[keep_B],
        keys=tuple(dataclasses.replace(one, array=one.array[keep_B]) for one in table.keys),
        items=tuple(dataclasses.replace(one, array=one.array[keep_B]) for one in table.items),
        protected=tuple(
            dataclasses.replace(one, array=one.array[keep_B]) for one in table.protected
        ),
        notes=(*table.notes, note),
    )


def infer(
    table: Table, data: spec.Data, features: Features, *, preferred: Container[str] = ()
) -> Learnable:
    """Infer the schema of rows with target, group and time; DataError has all problems at once."""
    return _Inference(table, data, features).learnable(preferred)


def only(raw: schema.Raw, keep_B: np.ndarray) -> schema.Raw:
    """The raw values of the rows (B) that are true."""
    if keep_B.all():
        return raw
    if isinstance(raw, Texts):
        return raw.filter(keep_B)
    return raw[keep_B] if isinstance(raw, np.ndarray) else list(itertools.compress(raw, keep_B))


class _Inference:
    def __init__(self, table: Table, data: spec.Data, chosen: Features) -> None:
        self._table, self._data, self._features = table, data, chosen
        self._made = features.made.find(chosen)
        kinds = {name: one.kind for name, one in chosen.items()}
        no_inputs = (name for name, kind in kinds.items() if kind and not kind.is_input)
        self._left_out = {*data.drop, *no_inputs}
        numbers = [one for one in table if kinds.get(one) in (None, NUMERIC)]
        asked = {one: table[one] for one in numbers if one not in self._left_out}
        self._comma = inference.has_comma(asked)
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._labels: dict[str, schema.Column] = {}

    def learnable(self, preferred: Container[str]) -> Learnable:
        self._problems += self._absent()
        rows, arrays = self._clean()
        if self._data.recommend and not self._problems:
            rows, arrays = self._choices(self._data.recommend, rows, arrays)
        if not self._problems:
            with self._collected():
                task, targets = self._target(preferred)
        inputs, keys = self._inputs()
        items, protected = list(self._items()), list(self._protected())
        self._problems += self._misfits(inputs or keys)
        if self._problems:
            raise errors.DataError(*dict.fromkeys(self._problems))
        if not inputs and not keys:
            need = "an input column is needed, but there is none beside the target"
            raise errors.DataError(f"{self._data.source}: {need}")
        for one in keys if inputs else ():
            self._notes.append(f"{one.column.name}: only identifies rows, so it is left out")
        used = inputs or keys
        split = self._data.split
        return Learnable(
            schema=Schema(columns=tuple(one.column for one in used), target=task.target),
            columns={one.column.name: one.array for one in used},
            targets=targets,
            label=self._labels[self._data.target],
            rows=rows,
            groups=arrays[split.group] if split.group else None,
            times=arrays[split.time] if split.time else None,
            notes=(*self._notes, *(note for one in used for note in one.notes)),
            keys=tuple(keys) if inputs else (),
            spellings={one.column.name: one.spellings for one in used if one.spellings},
            items=tuple(items),
            protected=tuple(protected),
        )

    @contextlib.contextmanager
    def _collected(self, fix: str = "") -> Iterator[None]:
        try:
            yield
        except errors.DataError as error:
            self._problems += [problem + fix for problem in error.problems]

    def _left_out_by(self, name: str) -> str:
        """What leaves out a column that cannot be read, to end a message."""
        if self._declared(name) is not None:
            return ""
        return f"; {messages.setting({'data': {'drop': [name]}})} leaves it out"

    def _absent(self) -> Iterator[str]:
        data, known = self._data, list(self._table)
        made = {one.name: one for one in self._made}
        wanted = [
            ("data.target", data.target),
            ("data.split.group", data.split.group),
            ("data.split.time", data.split.time),
            *((f"data.recommend.{key}", name) for key, name in self._recommended),
            *(("data.recommend.items", name) for name in self._described),
            *(("data.drop", name) for name in data.drop),
            *(("data.protected", name) for name in data.protected),
            *(("features", name) for name in self._features if name not in made),
            *((f"features.{one.name}.{one.key}", name) for one in made.values() for name in one.of),
        ]
        for key, name in wanted:
            if name is not None and name not in self._table:
                near = names.near(name, known) or _columns(known)
                yield f"{key}: a column of {data.source} is needed, but got {name!r}{near}"

    def _misfits(self, inputs: list[inference.Inferred]) -> Iterator[str]:
        """Problems of columns that are made: of their names, and of what they are made of."""
        known = {one.column.name: one.column for one in inputs}
        for one in self._made:
            place = f"features.{one.name}"
            if one.name in self._table:
                law = f"a new name is needed beside {one.how}"
                yield f"{place}: {law}, but {self._data.source} has a column {one.name!r}"
            if foreign := [name for name in one.of if name in self._table and name not in known]:
                got = f"{foreign[0]} is no input"
            elif known.keys() >= set(one.of) and not self._fit(one, known):
                got = ", ".join(f"{name} is {known[name].type}" for name in one.of)
            else:
                continue
            need = f"inputs that are all {' or all '.join(one.takes)}" if one.takes else "inputs"
            yield f"{place}.{one.key}: {need} are needed, but {got}"

    def _fit(self, made: features.made.Made, known: Mapping[str, Column]) -> bool:
        """Whether a column can be made of these; a function of the user's takes all."""
        if not made.takes:
            return True
        sorts = {features.made.sort(self._encoding(known[name])) for name in made.of}
        return len(sorts) == 1 and sorts <= set(made.takes)

    def _encoding(self, column: Column) -> features.Encoding:
        return column.kind.encoding(self._features.get(column.name) or column.kind.options())

    def _clean(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Drop rows; return the others' numbers, and the target, group and time by column name."""
        data, count = self._data, len(next(iter(self._table.values()), ()))
        keep_B, arrays = np.ones(count, bool), {}
        named = (name for _, name in self._recommended)
        for name in (data.target, data.split.group, data.split.time, *named):
            if name is None or name not in self._table:
                continue
            with self._collected():
                arrays[name] = self._required(name)
                missing_B = columns.missing_rows(arrays[name])
                if missing_B.any():
                    self._notes.append(
                        f"{name}: {missing_B.sum()} of {count} rows have none and are left out"
                    )
                    keep_B &= ~missing_B
        if not self._problems and not keep_B.any():
            law = f"a row needs a value in each of {', '.join(arrays)}"
            self._problems.append(f"{data.source}: {law}, but none of {count} rows has all")
        if not self._problems:
            self._table = {name: only(raw, keep_B) for name, raw in self._table.items()}
        return np.flatnonzero(keep_B) + 1, {name: arrays[name][keep_B] for name in arrays}

    @property
    def _recommended(self) -> list[tuple[str, str]]:
        """The columns of `data.recommend` by key."""
        chosen = self._data.recommend
        named = {"user": chosen.user, "rating": chosen.rating} if chosen else {}
        return [(key, name) for key, name in named.items() if name is not None]

    @property
    def _described(self) -> tuple[str, ...]:
        """Columns that describe items."""
        return self._data.recommend.items if self._data.recommend else ()

    def _choices(
        self, chosen: spec.Recommend, rows: np.ndarray, arrays: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Keep what counts as the choice of a user, once: rows and arrays as `_clean` has them."""
        keep_B = np.ones(len(rows), bool)
        if chosen.rating is not None and chosen.least is not None:
            keep_B = arrays[chosen.rating] >= chosen.least
            self._notes.append(
                f"{chosen.rating}: {np.count_nonzero(~keep_B):,} of {len(rows):,} rows have less"
                f" than {chosen.least:g} and are left out; it is no input"
            )
            if not keep_B.any():
                law = f"a row needs a {chosen.rating} of at least {chosen.least:g}, but none has it"
                self._problems.append(f"data.recommend.least: {law}")
                return rows, arrays
        pairs = (arrays[chosen.user].astype(object), arrays[self._data.target].astype(object))
        kept = np.flatnonzero(keep_B)
        first_B = columns.first_of_each(columns.hashed_rows(one[kept] for one in pairs))
        if repeated := len(kept) - np.count_nonzero(first_B):
            self._notes.append(
                f"{self._data.target}: {repeated:,} rows repeat an earlier one of their"
                f" {chosen.user} and are left out"
            )
        keep_B[kept] = first_B
        self._table = {name: only(raw, keep_B) for name, raw in self._table.items()}
        return rows[keep_B], {name: array[keep_B] for name, array in arrays.items()}

    def _required(self, name: str) -> np.ndarray:
        """Values of the target, group or time; groups and classes are names, even if long texts."""
        data, raw = self._data, self._table[name]
        kind = CATEGORICAL if name == data.split.group else self._declared(name)
        found = self._inferred(name, raw, kind)
        if found is None:
            raise errors.DataError(f"{name}: at least one value is needed, but all are missing")
        column, kind = found.column, found.column.kind
        if name == data.split.time and not kind.is_ordered:
            raise errors.DataError(
                f"data.split.time: dates or numbers are needed, but {name} is {column.type}"
            )
        if ("rating", name) in self._recommended:
            if found.array.dtype == object or not kind.is_ordered:
                law = "data.recommend.rating: numbers are needed"
                raise errors.DataError(f"{law}, but {name} is {column.type}")
            return found.array
        self._labels[name] = column
        if kind.target in (None, kind.name):
            return found.array
        self._labels[name] = column.model_copy(update={"type": kind.target})
        return schema.parse_column(self._labels[name], raw)

    def _declared(self, name: str) -> ColumnKind | None:
        """The kind that the experiment file names; None where it is inferred."""
        chosen = self._data.recommend
        if chosen is not None and name in (chosen.user, self._data.target):
            return CATEGORICAL
        kind = self._features[name].kind if name in self._features else None
        return kind if kind is not None and kind.is_input else None

    def _target(self, preferred: Container[str]) -> tuple[tasks.Task, np.ndarray]:
        data = self._data
        raw, kind = self._table[data.target], self._declared(data.target)
        found = self._inferred(data.target, raw, kind)
        assert found is not None  # rows without a target are gone
        column = tasks.TargetColumn(
            found.column, found.array, raw, kind, data.positive, data.quantiles
        )
        if data.recommend is not None:
            asked = data.recommend
            column = dataclasses.replace(column, user=asked.user, k=asked.k)
        task = tasks.infer(column, preferred)
        return task, task.encode(raw)

    def _inputs(self) -> tuple[list[inference.Inferred], list[inference.Inferred]]:
        """Columns to learn from, and columns that only identify rows."""
        split, inputs, keys = self._data.split, [], []
        for name, raw in self._table.items():
            if name == self._data.target or name in self._left_out:
                continue
            if ("rating", name) in self._recommended or name in self._described:
                continue
            if name in (split.group, split.time) and name not in self._features:
                self._notes.append(
                    f"{name}: used to split the rows, so it is no input; list it in `features`"
                    " to use it"
                )
                continue
            with self._collected(self._left_out_by(name)):
                found, named = self._input(name, raw), self._declared(name)
                if found is None:
                    self._notes.append(f"{name}: all values are missing, so it is left out")
                elif named is None and _only_identifies(found):
                    keys.append(found)
                else:
                    inputs.append(found)
        return inputs, keys

    def _items(self) -> Iterator[inference.Inferred]:
        """Columns that describe items, with a note on them."""
        for name in self._described:
            with self._collected():
                found = self._input(name, self._table[name]) if name in self._table else None
                if found is not None:
                    self._notes.append(f"{name}: describes {self._data.target}, so it is no input")
                    yield found

    def _protected(self) -> Iterator[inference.Inferred]:
        """Columns by whose groups predictions are compared, whether they are inputs or not."""
        for name in self._data.protected:
            if name not in self._table:
                continue  # said by `_absent`
            with self._collected():
                found = self._input(name, self._table[name])
                if found is None:
                    law = "data.protected: a column with values is needed"
                    raise errors.DataError(f"{law}, but all of {name!r} are missing")
                yield found

    def _input(self, name: str, raw: schema.Raw) -> inference.Inferred | None:
        """Infer a column; repeated numbers are categories if its name is that of an identifier."""
        kind = self._declared(name)
        found = self._inferred(name, raw, kind)
        if found is not None and ("user", name) in self._recommended:
            # of more users than the schema lists, whether requests may have numbers
            numbers = all(map(values.is_number, found.array[:SAMPLE].tolist()))
            column = found.column.model_copy(update={"integer": numbers})
            return dataclasses.replace(found, column=column)
        if kind is not None or found is None or not hints_at_identifier(name):
            return found
        is_code = found.column.integer and not _all_distinct(found)
        return self._inferred(name, raw, CATEGORICAL) if is_code else found

    def _inferred(
        self, name: str, raw: schema.Raw, kind: ColumnKind | None
    ) -> inference.Inferred | None:
        return inference.infer(name, raw, kind, self._data.missing, comma=self._comma)


def _columns(known: list[str]) -> str:
    if len(known) == 1:
        return f"; its only column is {known[0]!r}: set data.delimiter to the separator"
    return f"; its columns are {messages.listed(known, MOST_SHOWN)}{header_hint(known)}"


def _only_identifies(found: inference.Inferred) -> bool:
    column, array = found.column, found.array
    hinted = hints_at_identifier(column.name)
    if not hinted and (len(array) < FEW_ROWS or column.nullable):
        return False
    return column.kind.is_key(column, array, hinted=hinted) and _all_distinct(found)


def _all_distinct(found: inference.Inferred) -> bool:
    array = found.array
    if found.column.nullable or len(set(array[:SAMPLE].tolist())) < len(array[:SAMPLE]):
        return False
    return len(set(array.tolist())) == len(array)
