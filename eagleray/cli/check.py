"""`eagleray check` and `eagleray schema`: what an experiment file says, and what it may say."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eagleray.errors import DataError, SpecError, UserError

if TYPE_CHECKING:
    from eagleray import spec
    from eagleray.spec import document
    from ray_jobs.data import prepare


def check(
    file: Annotated[Path, typer.Argument(help="The experiment file.")],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set tune.trials=4"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check an experiment file and its data, and print all that follows from them.

    What is printed can stand as an experiment file itself.
    """
    from eagleray import spec
    from eagleray.cli import overrides
    from eagleray.spec import document

    given = overrides.parse(assignments)
    try:
        experiment, problems = spec.examine(file, given)
    except SpecError as error:  # no YAML at all
        experiment, problems = None, error.problems
    dataset, faults = _read(experiment) if experiment else (None, [])
    if faults:
        page = document.read(file, given)
        problems += [_placed(fault, page) for fault in faults]
    if experiment is None or dataset is None or problems:
        if as_json:
            print(json.dumps({"problems": problems}, indent=2))
        raise SpecError(problems)
    facts = _facts(experiment, dataset)
    print(json.dumps({**facts, "problems": []}, indent=2) if as_json else _text(facts))


def schema(
    tables: Annotated[bool, typer.Option("--tables", help="Print Markdown tables.")] = False,
) -> None:
    """Print the JSON Schema of experiment files, for editors."""
    from eagleray.spec import reference

    print(reference.tables() if tables else json.dumps(reference.json_schema(), indent=2))


def _read(experiment: spec.Experiment) -> tuple[prepare.Dataset | None, list[str]]:
    """The data, and what is wrong with it or does not fit it."""
    from ray_jobs.data import prepare

    dataset, faults, own = None, [], {}
    try:
        own = experiment.code()
    except UserError as error:
        faults.append(str(error))
    try:
        dataset = prepare.dataset(experiment)
        faults += prepare.misfits(experiment, dataset)
        experiment.metric(dataset.schema.target.task)
        if own and not faults:
            from ray_jobs import probe

            probe.run(experiment, dataset, own)
    except DataError as error:
        faults += error.problems
    except UserError as error:
        faults.append(str(error))
    return dataset, faults


def _placed(fault: str, page: document.Document) -> str:
    """What is wrong with the data, at the line of the key that it begins with."""
    from eagleray.spec import sections

    key = tuple(fault.partition(":")[0].split("."))
    if key[0] not in sections.File.model_fields:
        return f"{page.path}: {fault}"
    return f"{page.path}:{line}: {fault}" if (line := page.line(key)) else f"--set {fault}"


def _facts(experiment: spec.Experiment, dataset: prepare.Dataset) -> dict[str, Any]:
    from ray_jobs.data import summary

    metric = experiment.metric(dataset.schema.target.task)
    return {
        "experiment": experiment.resolved(),
        "columns": [column.model_dump(mode="json") for column in dataset.schema.columns],
        "target": dataset.schema.target.model_dump(mode="json"),
        "rows": {name: len(rows) for name, rows in dataset.split.parts().items()},
        "about_target": summary.target(dataset),
        "notes": [*dataset.notes, *summary.remarks(experiment, dataset)],
        "metric": metric,
        "space": {
            "distributions": len(experiment.space),
            "configurations": experiment.size if math.isfinite(experiment.size) else None,
        },
    }


def _text(facts: dict[str, Any]) -> str:
    """The experiment as YAML, the rest as its comments."""
    from eagleray.spec import document

    written = document.write(facts["experiment"]).rstrip()
    return "\n".join([written, "", *(f"# {line}".rstrip() for line in _comments(facts))])


def _comments(facts: dict[str, Any]) -> Iterator[str]:
    target, space, rows = facts["target"], facts["space"], facts["rows"]
    width = max(len(column["name"]) for column in facts["columns"])
    for column in facts["columns"]:
        yield f"{column['name']:{width}}  {_described(column)}"
    yield f"target {target['name']}: {facts['about_target']}"
    yield f"rows: {', '.join(f'{count:,} {part}' for part, count in rows.items())}"
    count = space["configurations"]
    size = "endlessly many" if count is None else f"{count:,}"
    yield f"space: {space['distributions']} distributions, {size} configurations"
    yield f"compared by: {facts['metric']} on the validation part"
    yield from (f"note: {note}" for note in facts["notes"])


def _described(column: dict[str, Any]) -> str:
    """A column's type, and what there is to know of it."""
    shape, categories, missing = column["image_shape"], column["categories"], column["missing"]
    known = [
        column["type"],
        "x".join(map(str, shape)) if shape else "",
        f"{len(categories)} values" if categories else "",
        "whole" if column["integer"] else "",
        "with gaps" if column["nullable"] else "",
        f"missing is {' or '.join(missing)}" if missing else "",
    ]
    return ", ".join(part for part in known if part)
