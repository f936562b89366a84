"""The data of an experiment, ready for its trials: loaded, cleaned, typed and split once."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pandas as pd

from eagleray import audit, code, errors, messages, spec
from eagleray.learn import features, losses, models, tasks
from eagleray.learn.columns import NUMERIC
from eagleray.learn.schema import Column, Columns, Schema
from eagleray.spec import reading
from eagleray.tabular import inference, load, tables
from ray_jobs.data import encoded, folds, split
from ray_jobs.data.split import Split


@dataclass(frozen=True)
class Dataset:
    """All rows, and the part of each."""

    schema: Schema
    columns: Columns  # canonical, see `eagleray.learn.schema`
    rows: np.ndarray  # the number of each row in the source, from 1
    targets: np.ndarray  # see `tasks.Task.encode`
    split: Split
    fingerprint: str  # sha256 of schema, columns, targets and split
    notes: list[str]  # for people: what was left out or looks odd
    keys: tuple[inference.Inferred, ...] = ()  # columns that only identify rows, left out
    marks: features.Marks = features.UNMARKED  # what the split goes by
    spellings: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)  # by column
    folds: tuple[Split, ...] = ()  # of cross-validation, see `folds.part`
    items: tuple[inference.Inferred, ...] = ()  # columns that describe the target
    protected: tuple[inference.Inferred, ...] = ()  # columns whose groups are compared
    functions: Mapping[str, code.Code] = field(default_factory=dict)  # the user's, by name
    streamed: ClassVar[bool] = False  # whether training rows are a sample of others

    @property
    def counts(self) -> dict[str, int]:
        """The rows of each part."""
        return {name: len(rows) for name, rows in vars(self.split).items()}

    def take(self, rows: np.ndarray) -> Columns:
        return {name: column[rows] for name, column in self.columns.items()}

    def fold(self, number: int) -> "Dataset":
        """The data of a fold, from 0: its split in place of the whole one."""
        return replace(self, split=self.folds[number], folds=())

    def whole(self) -> "Dataset":
        """The data of a refit: the rows of training and validation are all trained on."""
        return replace(self, split=split.whole(self.split), folds=())

    def fit(self, options: Mapping[str, spec.FeatureOptions]) -> features.Transforms:
        """Raises as `features.Transforms.fit`."""
        rows, functions = self.split.train, self.functions
        fitted = features.Transforms.fit(
            self.schema,
            options,
            self.take(rows),
            targets=self.targets[rows],
            marks=self.marks.take(rows),
            functions=functions,
        )
        return dataclasses.replace(fitted, items=self._described(options)) if self.items else fitted

    def _described(self, options: Mapping[str, spec.FeatureOptions]) -> features.Items:
        """What the first row of each item says of it."""
        known = Schema(
            columns=tuple(one.column for one in self.items),
            target=self.schema.target.model_copy(update={"user": ""}),
        )
        first_I = np.unique(self.targets, return_index=True)[1]
        columns = {one.column.name: one.array[first_I] for one in self.items}
        own = {name: one for name, one in options.items() if name in columns}
        fitted = features.Transforms.fit(known, own, columns)
        return features.Items(fitted.apply(columns), fitted.shape.table)

    def trained(self, transforms: features.Transforms) -> np.ndarray:
        """The rows that are trained on: the training part without outliers that are dropped."""
        rows = self.split.train
        if not transforms.bounds:
            return rows
        trained: np.ndarray = rows[transforms.is_trained_on(self.take(rows))]
        return trained

    def training(self, transforms: features.Transforms) -> encoded.Part:
        """The rows that are trained on, see `features.Transforms.training`."""
        rows = self.trained(transforms)
        targets, marks = self.targets[rows], self.marks.take(rows)
        return encoded.Part(transforms.training(self.take(rows), targets, marks), targets)

    def part(self, transforms: features.Transforms, rows: np.ndarray) -> encoded.Part:
        return encoded.Part(transforms.apply(self.take(rows)), self.targets[rows])

    def encode(self, transforms: features.Transforms) -> encoded.Encoded:
        validation = self.part(transforms, self.split.validation)
        target = self.schema.target
        return encoded.Encoded(transforms, target, self.training(transforms), validation)


def dataset(experiment: spec.Experiment, frame: pd.DataFrame | None = None) -> Dataset:
    """Prepare an experiment's data; `frame` is its table, if the caller has read it.

    Raises:
        DataError: the data cannot be read, or nothing can be learned from it or from a fold.
        CodeError: the user's function that gives the data fails.
        StorageError: the object with the data cannot be fetched.
    """
    data, options = experiment.data, experiment.default().features
    if frame is None:
        frame = load.read(data, experiment.path.parent)
    table = tables.infer(load.table(frame), data, options, preferred=experiment.tasks)
    if data.duplicates == "drop":
        table = tables.without_duplicates(table)
    target = table.schema.target
    parts = split.indices(
        table.targets,
        target,
        data,
        groups=table.groups,
        times=table.times,
        users=table.columns[target.user] if target.user else None,
    )
    return Dataset(
        schema=table.schema,
        columns=table.columns,
        rows=table.rows,
        targets=table.targets,
        split=parts,
        fingerprint=fingerprint(table, parts),
        notes=[*table.notes, *_recommended(table, parts)],
        keys=table.keys,
        marks=features.Marks(table.groups, table.times),
        spellings=table.spellings,
        folds=folds.part(parts, table, data, experiment.tune.folds),
        items=table.items,
        protected=table.protected,
        functions=experiment.functions(),
    )


def _recommended(table: tables.Learnable, parts: split.Split) -> Iterator[str]:
    """Yield notes on users and items, where items are recommended."""
    target = table.schema.target
    if not target.user:
        return
    users = table.columns[target.user]
    known, judged = (len(set(users[rows].tolist())) for rows in (parts.train, parts.test))
    yield f"{target.user}: {judged:,} of {known:,} have rows in the test part"
    new = np.setdiff1d(table.targets, table.targets[parts.train])
    if len(new):
        later = np.concatenate([parts.validation, parts.test])
        missed = np.isin(table.targets[later], new).sum()
        yield (
            f"{target.name}: {len(new):,} of {len(target.classes):,} items have no training row, so"
            f" no model can recommend them: {missed:,} of {len(later):,} later rows count as missed"
        )


def audited(experiment: spec.Experiment, prepared: Dataset, now: float) -> audit.Table:
    """The table of the audit; `now` in seconds since 1970."""
    return audit.Table(
        experiment=experiment,
        schema=prepared.schema,
        columns=prepared.columns,
        targets=prepared.targets,
        rows=prepared.rows,
        parts=prepared.split.parts(),
        now=now,
        keys=[(one.column, one.array) for one in prepared.keys],
        marks=[one for one in prepared.marks if one is not None],
        spellings=prepared.spellings,
        total=sum(prepared.counts.values()),
    )


def evenly_spaced(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, evenly spaced."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(int)
    chosen: np.ndarray = rows[places]
    return chosen


def column_types(experiment: spec.Experiment, prepared: Dataset) -> set[str]:
    """The types of the input columns as a model sees them: numbers where code encodes texts."""
    known = [(one, _encoding(one, experiment)) for one in prepared.schema.columns]
    return {NUMERIC.name if isinstance(how, features.Vector) else one.type for one, how in known}


def misfits(experiment: spec.Experiment, prepared: Dataset) -> Iterator[str]:
    """Yield a problem for each key of the file that does not fit the data."""
    target = prepared.schema.target
    task = tasks.REGISTRY[target.task]
    if experiment.data.quantiles and not target.quantiles:
        law = "must be left out unless the target is a number"
        yield f"data.quantiles: {law}, but {target.name} has classes"
    for kind in experiment.families:
        described = [one.column for one in prepared.items]
        columns = [*prepared.schema.columns, *described]
        yield from _misfits_of_model(kind, task, columns, experiment)
    yield from _misfits_of_columns(prepared.schema, experiment)
    fitting = losses.fitting(task)
    for loss in experiment.losses:
        if loss in losses.REGISTRY and loss not in fitting:
            listed = ", ".join(fitting)
            yield f"train.loss: must be auto or one of {listed} for {task.name}, but got {loss}"
    try:
        experiment.metric(task.name)
    except errors.UserError as error:
        yield str(error)
    yield from losses.misfits(experiment.options("class_weights"), target)
    if not target.classes and "balanced" in experiment.options("sampling"):
        law = "must be left out unless the target has classes"
        yield f"train.sampling: {law}, but the task is {target.task}"
    yield from experiment.decide.misfits(target)


def _misfits_of_model(
    kind: str, task: type[tasks.Task], columns: Sequence[Column], experiment: spec.Experiment
) -> Iterator[str]:
    """Problems of columns and losses that a model cannot take."""
    if kind not in models.REGISTRY:
        return
    model, of_type = models.REGISTRY[kind], dict[str, list[str]]()
    for column in columns:
        if not isinstance(_encoding(column, experiment), features.Vector):
            of_type.setdefault(column.type, []).append(column.name)
    if model.needs is not None and model.needs not in of_type:
        got = f"got {', '.join(sorted(of_type))}"
        yield f"model.type: {kind} needs a column of type {model.needs}, but {got}"
    wrong = [name for one in sorted(model.refuses & of_type.keys()) for name in of_type[one]]
    if wrong:
        law = f"{kind} takes no column of type {' or '.join(sorted(model.refuses))}"
        fix = messages.setting({"data": {"drop": wrong}}) + " leaves them out"
        if left := [one for one in experiment.families if one != kind]:
            fix += f", {messages.setting({'model': {'families': left}})} the model"
        yield f"model.type: {law}, but got {', '.join(wrong)}; {fix}"
    for loss in experiment.losses if model.objectives else ():
        name = task.loss if loss == "auto" else loss
        if name not in losses.REGISTRY or losses.REGISTRY[name].objectives is None:
            able = [one for one in losses.REGISTRY if losses.REGISTRY[one].objectives]
            law = f"must be one of {', '.join(able)} beside model.type: {kind}"
            yield f"train.loss: {law}, but got {name}"


def _misfits_of_columns(known: Schema, experiment: spec.Experiment) -> Iterator[str]:
    """Problems of options of columns, and of what mixes their rows."""
    options = experiment.default().features
    for column in known.columns:
        if (chosen := options.get(column.name)) is not None and chosen.kind is column.kind:
            for problem in column.kind.misfits(column, chosen):
                yield f"features.{column.name}.{problem}"
    if any(reading.options(experiment.searched, "mixup")):
        kinds = {column.name: _encoding(column, experiment) for column in known.columns}
        kinds |= {one.name: one.encoding(options[one.name]) for one in features.made.find(options)}
        pictures = [one for one in kinds.values() if isinstance(one, features.Image)]
        unable = (features.Category, features.Text)
        wrong = [name for name, one in kinds.items() if isinstance(one, unable)]
        if wrong or not pictures:
            got = messages.listed(wrong) if wrong else "no pictures"
            yield f"train.mixup: pictures are needed, and beside them numbers alone, but got {got}"


def _encoding(column: Column, experiment: spec.Experiment) -> features.Encoding:
    chosen = experiment.default().features.get(column.name)
    return column.kind.encoding(chosen or column.kind.options())


def dropped(experiment: spec.Experiment, prepared: Dataset) -> Iterator[str]:
    """Yield how many training rows the file's `outliers: drop` leaves out, if it does."""
    chosen = experiment.default().features
    if not any(getattr(one, "outliers", "") == "drop" for one in chosen.values()):
        return
    transforms, rows = prepared.fit(chosen), len(prepared.split.train)
    gone = rows - len(prepared.trained(transforms))
    bounds = (f"{name} {low:g} to {high:g}" for name, (low, high) in transforms.bounds.items())
    yield (
        f"outliers: drop: {gone:,} of {rows:,} training rows are left out, which are not within"
        f" {', '.join(bounds)}; validation and test rows stay, bounded to these"
    )


def remarks(experiment: spec.Experiment, prepared: Dataset) -> Iterator[str]:
    """Yield what looks odd about the data, each with the line of YAML that changes it."""
    options, target = experiment.default().features, prepared.schema.target
    if target.name not in options:
        smallest = min(map(len, prepared.split.parts().values()))
        if other := tasks.of(target).alternative(prepared.targets, smallest):
            fix = messages.setting({"features": {target.name: {"type": other.type}}})
            yield f"{target.name}: {other.fact}; {fix} makes it a {other.task}"
    yield from dropped(experiment, prepared)
    for one in audit.REGISTRY["constant"](audited(experiment, prepared, now=0.0)):
        yield f"{one.message}; `{one.fix}` leaves it out"
    for column in prepared.schema.columns:
        name, array = column.name, prepared.columns[column.name]
        if name == target.user:
            continue
        chosen = options.get(name)
        named = chosen if chosen is not None and chosen.kind is not None else None
        yield from column.kind.remarks(column, array, prepared.split.train, named)


def fingerprint(table: tables.Learnable, parts: split.Split) -> str:
    """A hash of rows and parts; see `Dataset`."""
    digest = hashlib.sha256()
    described = table.schema.model_dump(mode="json", exclude_defaults=True)
    digest.update(json.dumps(described, sort_keys=True).encode())
    items = [one.array for one in table.items]
    for array in [*table.columns.values(), table.targets, *parts.parts().values(), *items]:
        if array.dtype == object:
            digest.update(_words_as_json(array.tolist()).encode())
        else:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _words_as_json(words: list[str | None]) -> str:
    """`json.dumps(words)`, but quicker: it writes each distinct word once."""
    written = {word: json.dumps(word) for word in set(words)}
    return f"[{', '.join(map(written.__getitem__, words))}]"
