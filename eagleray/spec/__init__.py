"""The experiment file: read, tried against every law, and turned into configurations.

document    YAML with line numbers       sections   the sections and their own laws
space       distributions                laws       what holds between sections
terms       words and scalar types       problems   the wording of problems
reference   what editors and people are told
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pydantic

from eagleray.errors import SpecError, UserError
from eagleray.learn import metrics, tasks
from eagleray.spec import document, laws, problems, space
from eagleray.spec.document import dotted
from eagleray.spec.reference import json_schema
from eagleray.spec.sections import (
    Compute,
    Configuration,
    Data,
    EarlyStopping,
    FeatureOptions,
    File,
    ModelOptions,
    Serve,
    Split,
    Train,
    Tune,
)
from eagleray.spec.space import Distribution, Tree

if TYPE_CHECKING:
    from eagleray import code

__all__ = [
    "LIMITS",
    "Compute",
    "Configuration",
    "Data",
    "Distribution",
    "EarlyStopping",
    "Experiment",
    "FeatureOptions",
    "ModelOptions",
    "Serve",
    "Split",
    "Train",
    "Tune",
    "examine",
    "json_schema",
    "load",
    "model_options",
]

SEMANTICS = 1
"""Raised when the same file comes to mean another search: searches of before are run again."""
LIMITS = {"trials", "budget"}
"""Keys of `tune` that say how far a search goes, not what it tries."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The file, checked.

    Attributes:
        path: the file; relative paths of data and code start at its folder.
        space: dotted key to distribution, in the order of the file.
        searched: `features`, `model` and `train`, distributions in their places.
    """

    path: Path
    name: str
    data: Data
    tune: Tune
    compute: Compute
    storage: str
    serve: Serve
    space: dict[str, Distribution]
    searched: Tree

    @property
    def size(self) -> float:
        """How many configurations there are; infinite if one distribution is continuous."""
        return math.prod(drawn.size() for drawn in self.space.values())

    @property
    def trials(self) -> int:
        """How many configurations are tried: each of a small space once."""
        return int(min(self.tune.trials, self.size))

    def configuration(self, values: Mapping[str, object]) -> Configuration:
        """The configuration with `values` for the keys of `space`.

        Raises:
            SpecError: keys that are not those of `space`, or values that break a law.
        """
        if values.keys() != self.space.keys():
            law = f"values must be for {', '.join(self.space) or 'no key'}"
            raise SpecError([f"{self.path}: {law}, but got {', '.join(values) or 'none'}"])
        places = {key: values[dotted(key)] for key, _ in space.find(self.searched)}
        try:
            return Configuration.model_validate(space.fill(self.searched, places))
        except pydantic.ValidationError as error:
            broken = [f"{self.path}: {problem}" for problem in problems.explain(error)]
            raise SpecError(broken) from error

    def default(self) -> Configuration:
        """Each distribution at its first choice or in its middle."""
        return self.configuration({key: drawn.default() for key, drawn in self.space.items()})

    def resolved(self) -> dict[str, Any]:
        """The whole experiment as it could stand in the file, defaults included."""
        tree = self._tree(exclude={"train": laws.idle(self.searched)})
        for options in tree["features"].values():
            for option in FeatureOptions.foreign(options["type"]):
                options.pop(option)
        return {name: tree[name] for name in File.model_fields}

    def given(self) -> dict[str, Any]:
        """What the file and its overrides set, without the defaults of what they leave out."""
        tree = self._tree(exclude_unset=True)
        return {name: tree[name] for name in File.model_fields if tree.get(name)}

    def search_id(self, data_fingerprint: str) -> str:
        """12 hex digits of what decides the outcome: data, code, space and search.

        Only keys that are set count, a default that is written out too: the defaults of another
        release make no other search. Where it runs, where it is kept, how it is served and how far
        it goes (`LIMITS`) do not count.
        """
        given = self.given()
        counted = {name: given[name] for name in given.keys() & {"name", "data", *laws.SEARCHED}}
        counted["tune"] = self.tune.model_dump(mode="json", exclude_unset=True, exclude=LIMITS)
        text = json.dumps([SEMANTICS, counted, data_fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks that its loss, its metric and `data.positive` are for."""
        data, tune = {"positive": self.data.positive}, {"metric": self.tune.metric}
        return laws.tasks({**self.searched, "data": data, "tune": tune})

    def metric(self, task: str) -> str:
        """What trials are compared by.

        Raises:
            UserError: a metric for other tasks.
        """
        known, chosen = tasks.REGISTRY[task], self.tune.metric
        fitting = metrics.fitting(known)
        if chosen == "auto":
            return known.metric
        if chosen not in fitting:
            listed = ", ".join(fitting)
            raise UserError(f"tune.metric: must be one of {listed} for {task}, but got {chosen}")
        return chosen

    def code(self) -> dict[str, code.Code]:
        """The user's own functions, by their names in `model.type` and `train.loss`.

        Raises:
            CodeError: one of them fails to import.
        """
        from eagleray import code

        kinds = laws.options(self.searched, "model.type", "mlp")
        losses = laws.options(self.searched, "train.loss", "auto")
        names = [name for name in kinds + losses if code.is_name(name)]
        return {name: code.read(name, self.path.parent) for name in names}

    def _tree(self, **dump: Any) -> dict[str, Any]:
        """Every section as pydantic dumps it, distributions in their places."""
        tree = self.default().model_dump(mode="json", **dump)
        for key, drawn in space.find(self.searched):
            section = functools.reduce(lambda node, part: node[part], key[:-1], cast(Any, tree))
            section[key[-1]] = {drawn.kind: drawn.arguments()}
        unset = bool(dump.get("exclude_unset"))
        for name in ("data", "tune", "compute", "serve"):
            tree[name] = getattr(self, name).model_dump(mode="json", exclude_unset=unset)
        return tree | {"name": self.name, "storage": self.storage}


def load(path: str | Path, overrides: Mapping[str, str] | None = None) -> Experiment:
    """The experiment in a file, with `overrides` (dotted key to YAML) put over it.

    Raises:
        SpecError: every problem of the file, each as
            `file:line: dotted.key: law, but got value; did you mean …`.
    """
    experiment, found = examine(path, overrides)
    if experiment is None or found:
        raise SpecError(found)
    return experiment


def examine(
    path: str | Path, overrides: Mapping[str, str] | None = None
) -> tuple[Experiment | None, list[str]]:
    """What `load` gives, and the problems beside it instead of raised.

    Faulty sections are at their defaults in the experiment, so that the data can still be looked
    at; without a sound `data` and `features` there is none.

    Raises:
        SpecError: the file cannot be read, or is no YAML.
    """
    page = document.read(Path(path), overrides)
    report = problems.Report(page)
    tree = laws.check(page, report)
    return _experiment(page.path, tree, report.faulty()), report.lines()


def model_options(value: Mapping[str, object]) -> ModelOptions:
    """The `model` section from what its `model_dump(mode="json")` gave.

    Raises:
        SpecError: no package that is installed here has the model.
    """
    try:
        return Configuration.model_validate({"model": dict(value)}).model
    except pydantic.ValidationError as error:
        raise SpecError([str(problem) for problem in problems.explain(error)]) from error


def _experiment(path: Path, tree: Tree, faulty: set[str]) -> Experiment | None:
    if faulty & {"", "data", "features"}:
        return None
    sound = {key: tree[key] for key in File.model_fields if key in tree and key not in faulty}
    sound.setdefault("name", "unnamed")
    file = File.model_validate(space.fill(sound, space.defaults(sound)))
    searched = {name: sound.get(name, {}) for name in laws.SEARCHED}
    drawn = {dotted(key): distribution for key, distribution in space.find(searched)}
    return Experiment(
        path=path,
        name=file.name,
        data=file.data,
        tune=file.tune,
        compute=file.compute,
        storage=file.storage,
        serve=file.serve,
        space=drawn,
        searched=searched,
    )
