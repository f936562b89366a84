"""The check of an experiment file and its data, before compute is spent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagleray import display, spec
from eagleray.errors import DataError, SpecError, UserError
from eagleray.learn import tasks
from eagleray.spec import document, sections

if TYPE_CHECKING:
    from ray_jobs import search


@dataclass(frozen=True)
class Check:
    """The result of checking an experiment file and its data.

    Attributes:
        facts: `experiment` with all defaults, `columns`, `target`, `about_target`, `rows`,
            `folds` (rows of each), `notes`, `metric` and `space`; empty where there are problems.
        problems: all of them, each with its line.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The experiment as a YAML file, with all other facts as comments."""
        written = document.write(self.facts["experiment"]).rstrip()
        return "\n".join([written, "", *(f"# {line}".rstrip() for line in self._comments())])

    def _repr_html_(self) -> str:
        rows = [(one["name"], _described(one)) for one in self.facts["columns"]]
        target, notes = self.facts["target"], display.notes(self.facts["notes"])
        about = f"{target['name']}: {self.facts['about_target']}; {self._rows()}"
        return display.page(about, notes, display.table(("column", "type"), rows))

    def _rows(self) -> str:
        return ", ".join(f"{count:,} {part}" for part, count in self.facts["rows"].items())

    def _comments(self) -> Iterator[str]:
        facts, target, space = self.facts, self.facts["target"], self.facts["space"]
        width = max(len(column["name"]) for column in facts["columns"])
        for column in facts["columns"]:
            yield f"{column['name']:{width}}  {_described(column)}"
        yield f"target {target['name']}: {facts['about_target']}"
        yield f"rows: {self._rows()}"
        count = space["configurations"]
        size = "unlimited" if count is None else f"{count:,}"
        yield f"space: {space['distributions']} distributions, {size} configurations"
        if folds := facts["folds"]:
            sizes = ", ".join(f"{one['training']} + {one['validation']}" for one in folds)
            yield f"folds: {sizes} rows to train on and to be judged on"
        judge = f"the mean over {len(folds)} folds" if folds else "the validation part"
        yield f"compared by: {facts['metric']} on {judge}"
        yield from (f"note: {note}" for note in facts["notes"])


def examine(file: Path, overrides: Mapping[str, str]) -> Check:
    """Check an experiment file and its data; problems are returned, not raised."""
    try:
        experiment, problems = spec.examine(file, overrides)
    except SpecError as error:  # no YAML at all
        return Check(problems=error.problems)
    searched, faults = _read(experiment) if experiment else (None, [])
    if faults:
        page = document.read(file, overrides)
        problems += [_located(fault, page) for fault in faults]
    if searched is None or problems:
        return Check(problems=problems)
    return Check(_facts(searched))


def _read(experiment: spec.Experiment) -> tuple[search.Search | None, list[str]]:
    """Read the data and try the user's code; problems are returned, not raised."""
    from ray_jobs import search

    try:
        searched = search.Search(experiment)
        if searched.custom:
            from ray_jobs import probe

            probe.run(searched)
    except DataError as error:
        return None, [*_of_code(experiment), *error.problems]
    except UserError as error:
        return None, [str(error)]
    return searched, []


def _of_code(experiment: spec.Experiment) -> list[str]:
    try:
        experiment.code()
    except UserError as error:
        return [str(error)]
    return []


def _located(fault: str, page: document.Document) -> str:
    """Prefix a problem with the file and the line of the key that it begins with."""
    key = tuple(fault.partition(":")[0].split("."))
    if key[0] not in sections.File.model_fields:
        return f"{page.path}: {fault}"
    return f"{page.path}:{line}: {fault}" if (line := page.line(key)) else f"--set {fault}"


def _facts(searched: search.Search) -> dict[str, Any]:
    from ray_jobs.data import prepare

    experiment, dataset = searched.experiment, searched.dataset
    target = dataset.schema.target
    return {
        "experiment": experiment.resolved(),
        "columns": [column.model_dump(mode="json") for column in dataset.schema.columns],
        "target": target.model_dump(mode="json"),
        "rows": dict(zip(dataset.split.parts(), dataset.counts.values(), strict=True)),
        "folds": [
            {"training": len(one.train), "validation": len(one.validation)} for one in dataset.folds
        ],
        "about_target": tasks.of(target).summary(dataset.targets),
        "notes": [*dataset.notes, *prepare.remarks(experiment, dataset)],
        "metric": searched.metric,
        "space": {
            "distributions": len(experiment.space),
            "configurations": experiment.size if math.isfinite(experiment.size) else None,
        },
    }


def _described(column: Mapping[str, Any]) -> str:
    shape, categories, missing = column["image_shape"], column["categories"], column["missing"]
    parts = [
        column["type"],
        "x".join(map(str, shape or ())),
        f"{len(categories)} values" if categories else "",
        "whole" if column["integer"] else "",
        "may be missing" if column["nullable"] else "",
        f"missing is {' or '.join(missing)}" if missing else "",
    ]
    return ", ".join(filter(None, parts))
