"""Every law of the experiment file, tried on one document.

A section's own laws are its model's. Here: where distributions may stand, that each of their ends
obeys the laws of its place, and what sections ask of each other.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Container, Iterator
from typing import Any

import pydantic

from eagleray.learn import columns, losses, metrics
from eagleray.learn.tasks import REGISTRY, Task
from eagleray.spec import document, problems, sections, space
from eagleray.spec.document import Key, dotted
from eagleray.spec.problems import Problem, show
from eagleray.terms import Section

SEARCHED = ("features", "model", "train")

_IDLE: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    # key of `train`: what it hangs on, whether a value of that leaves it idle, and the law
    "momentum": ("optimizer", lambda name: name != "sgd", "needs optimizer: sgd beside it"),
    "label_smoothing": (
        "loss",
        lambda name: (
            name in losses.REGISTRY and "label_smoothing" not in losses.REGISTRY[name].options
        ),
        "needs a cross-entropy loss beside it",
    ),
}


def check(page: document.Document, report: problems.Report) -> space.Tree:
    """The document with distributions in their places; `report` gets what is wrong with it."""
    if not isinstance(page.value, dict):
        report.add(Problem((), "must be a mapping of keys to values", show(page.value)))
        return {}
    tree = {name: _lift(value, (name,), report) for name, value in page.value.items()}
    _try_defaults(tree, report)
    _try_ends(tree, report)
    for problem in _laws_between_sections(tree):
        report.add(problem)
    return tree


def options(tree: space.Tree, key: str, default: object) -> list[Any]:
    """All values that trials can get for `section.key`, or the ends of a continuous one."""
    section, _, name = key.partition(".")
    node = _section(tree, section).get(name, default)
    return [end for _, end in node.ends()] if isinstance(node, space.Distribution) else [node]


def tasks(tree: space.Tree) -> frozenset[str]:
    """The tasks that every loss, the metric and `data.positive` are for."""
    claimed = (fitting for *_, fitting in _claims(tree))
    return frozenset(REGISTRY).intersection(*claimed)


def idle(tree: space.Tree) -> set[str]:
    """Keys of `train` that no trial would look at."""
    return {
        key
        for key, (other, leaves_idle, _) in _IDLE.items()
        if all(leaves_idle(value) or _is_code(value) for value in _of_train(tree, other))
    }


def _lift(node: object, key: Key, report: problems.Report) -> object:
    """The node with its distributions parsed; None where one is wrong, which is reported."""
    if isinstance(node, list):
        return [_lift(item, (*key, at), report) for at, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    kind = space.kind_of(node)
    if kind is None or key == ("features",):  # there it is a column that has such a name
        return {name: _lift(value, (*key, name), report) for name, value in node.items()}
    try:
        _refuse(key, node[kind])
        return space.parse(kind, node[kind])
    except ValueError as error:
        report.add(Problem(key, str(error), show(node)))
        return None


def _refuse(key: Key, arguments: object) -> None:
    """Raises ValueError with the reason why this distribution may not stand here."""
    match key:
        case ("model", "type") | ("features", _, "type"):
            raise ValueError("is the same for all trials, so no distribution may stand here")
        case (name, *_) if name not in SEARCHED:
            where = ", ".join(SEARCHED)
            raise ValueError(f"is the same for all trials: distributions stand in {where} only")
        case (_,) | ("features", _):
            raise ValueError("a distribution stands for one value, not for a section")
    if isinstance(arguments, list) and any(map(space.kind_of, arguments)):
        raise ValueError("a distribution holds values, not distributions")


def _try_defaults(tree: space.Tree, report: problems.Report) -> None:
    """Every section, its distributions at their defaults; what is at fault in these comes later."""
    defaults = space.defaults(tree)
    lifted = defaults.keys() | report.keys
    for problem in _broken(sections.File, space.fill(tree, defaults)):
        heads = {problem.key[:length] for length in range(1, len(problem.key) + 1)}
        if not heads & lifted:
            report.add(problem)


def _try_ends(tree: space.Tree, report: problems.Report) -> None:
    searched = {name: tree[name] for name in SEARCHED if name in tree}
    defaults = space.defaults(searched)
    for key, drawn in space.find(searched):
        for at, end in drawn.ends():
            filled = space.fill(searched, {**defaults, key: end})
            for problem in _broken(sections.Configuration, filled):
                if problem.key[: len(key)] == key:
                    inside = (*key, drawn.kind, at, *problem.key[len(key) :])
                    report.add(_of_distribution(problem, drawn), inside)


def _of_distribution(problem: Problem, drawn: space.Distribution) -> Problem:
    """The problem of an end, said of the whole."""
    if isinstance(drawn, space.Choice):
        return problem
    written = show({drawn.kind: drawn.arguments()})
    if problem.law == problems.WHOLE:
        return dataclasses.replace(problem, got=written, near="{randint: …}")
    return dataclasses.replace(problem, got=f"{problem.got} in {written}", near=None)


def _broken(section: type[Section], tree: object) -> list[Problem]:
    try:
        section.model_validate(tree)
    except pydantic.ValidationError as error:
        return problems.explain(error)
    return []


def _laws_between_sections(tree: space.Tree) -> Iterator[Problem]:
    yield from _column_laws(tree)
    yield from _task_laws(tree)
    yield from _grid_laws(tree)
    for key in sorted(idle(tree) & _section(tree, "train").keys()):
        other, _, law = _IDLE[key]
        yield Problem(("train", key), law, f"{other}: {' or '.join(_of_train(tree, other))}")


def _column_laws(tree: space.Tree) -> Iterator[Problem]:
    data, features = _section(tree, "data"), _section(tree, "features")
    dropped = data.get("drop")
    for column in dropped if isinstance(dropped, list) else []:
        if column in features:
            yield Problem(("features", column), "must be an input, but is in data.drop")
    target = str(data.get("target"))
    for key, value in _section(features, target).items():
        place = ("features", target, key)
        if key != "type":
            yield Problem(place, "the target has no options but type", show(value))
        elif value in columns.REGISTRY and value not in _targets():
            *others, last = _targets()
            law = f"the target must be {', '.join(others)} or {last}"
            yield Problem(place, law, show(value))


def _targets() -> list[str]:
    """The column kinds that a target may have."""
    return [name for name in columns.REGISTRY if columns.REGISTRY[name].target == name]


def _task_laws(tree: space.Tree) -> Iterator[Problem]:
    """What speaks of a task must speak of the same one."""
    for (key, value, fitting), (other, rival, rivals) in itertools.combinations(_claims(tree), 2):
        if not fitting & rivals:
            law = f"must fit {dotted(key)}: {value}, which is for {' and '.join(sorted(fitting))}"
            yield Problem(other, law, show(rival))


def _claims(tree: space.Tree) -> Iterator[tuple[Key, object, frozenset[str]]]:
    """Yield each key whose value fits some tasks only: key, value, and those tasks."""
    for loss in _of_train(tree, "loss"):
        yield ("train", "loss"), loss, _tasks(loss, losses.REGISTRY, losses.fitting)
    metric = _section(tree, "tune").get("metric")
    yield ("tune", "metric"), metric, _tasks(metric, metrics.REGISTRY, metrics.fitting)
    if positive := _section(tree, "data").get("positive"):
        takes = (name for name in REGISTRY if REGISTRY[name].positive is not None)
        yield ("data", "positive"), positive, frozenset(takes)


def _tasks(
    name: object, registered: Container[object], fitting: Callable[[type[Task]], list[str]]
) -> frozenset[str]:
    """The tasks that a loss or a metric is for; all where the name does not tell."""
    told = isinstance(name, str) and name in registered
    return frozenset(task for task in REGISTRY if not told or name in fitting(REGISTRY[task]))


def _grid_laws(tree: space.Tree) -> Iterator[Problem]:
    tune, found = _section(tree, "tune"), space.find(tree)
    if tune.get("search") != "grid":
        return
    if not found:
        yield Problem(("tune", "search"), "grid needs a distribution in features, model or train")
    endless = [key for key, drawn in found if drawn.size() == math.inf]
    for key in endless:
        yield Problem(key, "must be choice, randint or quniform for a grid search")
    size = math.prod(drawn.size() for _, drawn in found)
    trials = tune.get("trials", sections.Tune.model_fields["trials"].default)
    if not endless and type(trials) is int and trials < size:
        law = f"must be at least {size} for a grid search, which tries all combinations"
        yield Problem(("tune", "trials"), law, show(trials))


def _section(tree: space.Tree, name: str) -> space.Tree:
    """A section, or an empty one where the file has none or something else."""
    section = tree.get(name)
    return section if isinstance(section, dict) else {}


def _of_train(tree: space.Tree, key: str) -> list[Any]:
    return options(tree, f"train.{key}", sections.Train.model_fields[key].default)


def _is_code(value: object) -> bool:
    return isinstance(value, str) and ":" in value
