"""The experiment file: read, validated, and turned into configurations.

document    YAML with line numbers       sections    the sections and their own laws
auto        the spaces of several models
space       distributions                validation  all laws, those between sections too
terms       types of the keys            problems    what is wrong, in words
reference   JSON Schema and tables
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pydantic
from pydantic import Field

from eagleray.errors import SpecError, UserError
from eagleray.learn import columns, features, metrics, models, tasks
from eagleray.spec import auto, document, problems, reading, space, validation
from eagleray.spec.compute import Compute as Compute
from eagleray.spec.decide import Decide as Decide
from eagleray.spec.document import dotted
from eagleray.spec.recommend import Recommend as Recommend
from eagleray.spec.sections import Configuration as Configuration
from eagleray.spec.sections import Data as Data
from eagleray.spec.sections import FeatureOptions as FeatureOptions
from eagleray.spec.sections import File, with_defaults
from eagleray.spec.sections import Split as Split
from eagleray.spec.train import Train as Train
from eagleray.spec.tune import Tune as Tune

if TYPE_CHECKING:
    from eagleray import code

SEMANTICS = 1
"""Increased when the same file comes to mean another search; earlier searches then run again."""
EARLIER_MODEL = "mlp"
"""The default model of earlier releases, whatever the columns were."""
MEMBERS = 5
"""Most members of an ensemble beside `model.type: auto`."""
LIMITS = {
    "trials",
    "budget",
    "pack",
    "ensemble",
}  # keys of `tune` that do not say what a search tries


class Experiment(File):
    """A valid file, each distribution at its default; in `searched` they are in their places."""

    path: Path = Field(exclude=True)  # relative paths of data and code start at its folder
    searched: dict[str, Any] = Field(exclude=True)

    @property
    def encodings(self) -> dict[str, space.Distribution]:
        """The distributions by which rows are encoded in other ways."""
        kinds = (columns.REGISTRY[name] for name in columns.REGISTRY)
        in_training = {option for kind in kinds for option in kind.in_training}
        return {
            dotted(key): drawn
            for key, drawn in space.find(self.searched)
            if key[0] == "features" and key[2] not in in_training
        }

    @functools.cached_property
    def space(self) -> dict[str, space.Distribution]:
        """The distributions by dotted key, in the order of the file."""
        return {dotted(key): drawn for key, drawn in space.find(self.searched)}

    @property
    def size(self) -> float:
        """The number of configurations; infinite if one distribution is continuous."""
        return math.prod(drawn.size() for drawn in self.space.values())

    @property
    def trials(self) -> int:
        return int(min(self.tune.trials, self.size))

    @property
    def hours(self) -> float:
        """Hours of trials that the budget pays for; infinite without a limit."""
        budget, compute, limits = self.tune.budget, self.compute, [math.inf]
        if budget is not None and budget.gpu_hours is not None:
            limits.append(budget.gpu_hours / (compute.gpus * compute.workers.max))
        if budget is not None and budget.money is not None:
            limits.append(budget.money / (compute.price or math.nan))
        return min(limits)

    @property
    def families(self) -> tuple[str, ...]:
        """The models that trials may take."""
        if not isinstance(self.model, models.Auto):
            return (self.model.type,)
        return tuple(self.searched["model"][auto.FAMILY].grid())

    @property
    def members(self) -> int:
        """The most members of an ensemble; 1 where the winner is one trial."""
        tune = self.tune
        if tune.ensemble.members == "auto":
            several = isinstance(self.model, models.Auto) and tune.cost is None and tune.folds == 1
            return MEMBERS if several else 1
        return int(tune.ensemble.members)

    @property
    def losses(self) -> list[str]:
        return self.options("loss")

    def options(self, key: str) -> list[Any]:
        """All values of `train.key` that trials can get, see `reading.options`."""
        return reading.options(self.searched, key)

    @property
    def optimizers(self) -> list[str]:
        return reading.options(self.searched, "optimizer")

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks that the model, losses, metric, `data` and `decide` allow."""
        data = self.data.model_dump(include={"positive", "quantiles", "recommend"})
        tune = {"metric": self.tune.metric}
        decide = self.decide.model_dump()
        return validation.tasks({**self.searched, "data": data, "tune": tune, "decide": decide})

    @property
    def names_model(self) -> bool:
        """Whether the file has a section `model`; else the columns choose one."""
        return "model" in self.model_fields_set

    def fitted(self, types: Set[str]) -> Experiment:
        """The experiment with those models of `auto` that take columns of all these types.

        A file that names no model gets the default for such columns, unless it has `EARLIER_MODEL`.
        """
        if not self.names_model and self.model.type != EARLIER_MODEL:
            return self._of(models.default_type(types, recommends=self.data.recommend is not None))
        if not isinstance(self.model, models.Auto) or self.model.families is not None:
            return self
        takes = {name for name in models.REGISTRY if models.REGISTRY[name].takes(types)}
        return self._with(searched=auto.narrowed(self.searched, takes.__contains__))

    def with_earlier_model(self) -> Experiment:
        """The experiment as earlier releases read it, with their default model."""
        return self if self.names_model else self._of(EARLIER_MODEL)

    def _of(self, kind: str) -> Experiment:
        """The experiment with a default model."""
        model = models.parse({"type": kind})
        searched = {**self.searched, "model": {"type": kind}}
        return self._with(model=model, train=with_defaults(model, self.train), searched=searched)

    def _with(self, **changes: Any) -> Experiment:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return Experiment.model_construct(self.model_fields_set, **{**fields, **changes})

    def configuration(self, values: Mapping[str, object]) -> Configuration:
        """The configuration with `values` for the keys of `space`; SpecError for invalid ones."""
        if values.keys() != self.space.keys():
            law = f"values must be for {', '.join(self.space) or 'no key'}"
            raise SpecError(f"{self.path}: {law}, but got {', '.join(values) or 'none'}")
        places = {key: values[dotted(key)] for key, _ in space.find(self.searched)}
        try:
            return Configuration.model_validate(auto.chosen(space.fill(self.searched, places)))
        except pydantic.ValidationError as error:
            broken = [f"{self.path}: {problem}" for problem in problems.explain(error)]
            raise SpecError(*broken) from error

    def default(self) -> Configuration:
        """Each distribution at its first choice or in its middle."""
        if isinstance(self.model, models.Auto):
            return self.configuration({key: drawn.default() for key, drawn in self.space.items()})
        return Configuration(features=self.features, model=self.model, train=self.train)

    def resolved(self) -> dict[str, Any]:
        """The whole experiment as it could stand in the file, defaults included."""
        tree = self._tree(exclude={"train": validation.without_effect(self.searched)})
        for name, options in tree["features"].items():
            foreign = FeatureOptions.foreign(options["type"])
            for option in {*options} - {"type"} if name == self.data.target else foreign:
                options.pop(option)
        return tree

    def explicit(self) -> dict[str, Any]:
        """The keys that the file and its overrides set, and `storage`; no other defaults."""
        tree = self._tree(exclude_unset=True) | {"storage": self.storage}
        return {name: tree[name] for name in File.model_fields if tree.get(name)}

    def search_id(self, data_fingerprint: str) -> str:
        """12 hex digits of what decides the outcome: data, code, space and search.

        `storage`, `serve`, `LIMITS`, `data.memory`, and of `compute` all but half precision do not
        count.
        """
        text = json.dumps([SEMANTICS, self.counted(), data_fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def counted(self) -> dict[str, Any]:
        """The keys by which searches differ.

        Only keys that are set count, so another release's defaults make no other search; and the
        default model, but for `EARLIER_MODEL`, which no id of earlier releases has.
        """
        explicit = self.explicit()
        counted = {name: explicit[name] for name in explicit if name in _COUNTED}
        if not self.names_model and self.model.type != EARLIER_MODEL:
            counted["model"] = {"type": self.model.type}
        counted["data"] = self.data.model_dump(mode="json", exclude_unset=True, exclude={"memory"})
        counted["tune"] = self.tune.model_dump(mode="json", exclude_unset=True, exclude=LIMITS)
        if self.compute.precision != "fp32":
            counted["compute"] = {"precision": self.compute.precision}
        return counted

    def metric(self, task: str) -> str:
        """The metric that trials are compared by; UserError if it does not fit the task."""
        known, chosen = tasks.REGISTRY[task], self.tune.metric
        fitting = metrics.fitting(known)
        if chosen == "auto":
            return known.metric
        if chosen not in fitting:
            listed = ", ".join(fitting)
            raise UserError(f"tune.metric: must be one of {listed} for {task}, but got {chosen}")
        return chosen

    def functions(self) -> dict[str, code.Code]:
        """The user's own code of columns by its name: what makes them, and encoders of texts."""
        chosen = self.features.values()
        names = [getattr(one, key) for one in chosen for key in features.own.FUNCTIONS]
        return self._read([name for name in names if name is not None])

    def _read(self, names: Iterable[str]) -> dict[str, code.Code]:
        from eagleray import code

        own = dict.fromkeys(name for name in names if code.is_name(name))
        return {name: code.read(name, self.path.parent) for name in own}

    def code(self) -> dict[str, code.Code]:
        """All of the user's own code by its name; CodeError where some fails to import."""
        return self._read([self.model.type, *self.losses, *self.optimizers]) | self.functions()

    def _tree(self, **dump: Any) -> dict[str, Any]:
        """The file as pydantic dumps it, distributions in their places."""
        tree = self.model_dump(mode="json", **dump)
        for key, drawn in space.find(self.searched):
            if isinstance(self.model, models.Auto) and key[0] == "model":
                continue  # of the models that it searches
            section = functools.reduce(lambda node, part: node[part], key[:-1], cast(Any, tree))
            section[key[-1]] = {drawn.kind: drawn.arguments}
        return tree


_COUNTED = {"name", "data", "decide", *validation.SEARCHED}


def load(path: str | Path, overrides: Mapping[str, str] | None = None) -> Experiment:
    """Read an experiment file, with `overrides` (dotted key to YAML) over it.

    SpecError has every problem, each as
    `file:line: dotted.key: law, but got value; did you mean …`.
    """
    experiment, lines = examine(path, overrides)
    if experiment is None or lines:
        raise SpecError(*lines)
    return experiment


def examine(
    path: str | Path, overrides: Mapping[str, str] | None = None
) -> tuple[Experiment | None, list[str]]:
    """Read an experiment file, and return its problems; SpecError if it cannot be read as YAML.

    Sections with problems are at their defaults, so that the data can still be checked; without
    valid `data` and `features` there is no experiment.
    """
    page = document.read(Path(path), overrides)
    tree, found = validation.check(page)
    lines, faulty = problems.lines(page, found), {dotted(one.key[:1]) for one in found}
    if faulty & {"", "data", "features"}:
        return None, lines
    valid: space.Tree = {"name": "unnamed"}
    valid |= {key: tree[key] for key in File.model_fields if key in tree and key not in faulty}
    if valid.get("model") == {}:
        del valid["model"]
    searched: space.Tree = {name: valid.get(name, {}) for name in validation.SEARCHED}
    searched["model"] = searched["model"] or {"type": reading.model_type(valid)}
    values = space.fill(valid, space.defaults(valid))
    searched = auto.expanded(searched)
    return Experiment.model_validate({**values, "path": page.path, "searched": searched}), lines
