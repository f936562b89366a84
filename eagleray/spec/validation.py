"""Every law of the experiment file, checked on one document.

A section's own laws are in its model. Here: where distributions may stand, that each of their ends
is valid, and laws between sections.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Container, Iterator
from typing import Any

import pydantic

from eagleray import code
from eagleray.learn import columns, features, losses, metrics, models, optimizers
from eagleray.learn.tasks import REGISTRY, Task
from eagleray.spec import decide, document, endpoint, problems, sections, space
from eagleray.spec.document import Key, dotted
from eagleray.spec.problems import Problem, show

MIN_SHARE = 2
"""Rows of a worker in a batch; batch norm needs two."""
SEARCHED = tuple(sections.Configuration.model_fields)


def check(page: document.Document) -> tuple[space.Tree, list[Problem]]:
    """Return the document with distributions in their places, and its problems."""
    if not isinstance(page.value, dict):
        return {}, [Problem((), "must be a mapping of keys to values", show(page.value))]
    found: list[Problem] = []
    tree = {name: _parse(value, (name,), found) for name, value in page.value.items()}
    found += _section_laws(tree, {one.key for one in found})
    searching = (_grid_laws, _cma_laws, _pbt_laws)
    for law in (
        _column_laws,
        _task_laws,
        *((_auto_laws,) if _model(tree) is models.Auto else searching),
        _tune_laws,
        _dependent_laws,
        _single_laws,
        _worker_laws,
        _rate_laws,
        _shard_laws,
        _schedule_laws,
    ):
        found += law(tree)
    return tree, found


def options(tree: space.Tree, key: str) -> list[Any]:
    """All values of `train.key` that trials can get; of a continuous distribution, its ends."""
    node = _section(tree, "train").get(key, _default(tree, key))
    return [end for _, end in node.ends()] if isinstance(node, space.Distribution) else [node]


def _default(tree: space.Tree, key: str) -> object:
    """The default of `train.key` beside the file's model."""
    own = _model(tree)
    return (own.train if own else {}).get(key, sections.Train.model_fields[key].default)


def tasks(tree: space.Tree) -> frozenset[str]:
    """The tasks that every loss, the metric, `data.positive` and `decide` are for."""
    return frozenset(REGISTRY).intersection(*(fitting for *_, fitting in _claims(tree)))


def without_effect(tree: space.Tree) -> set[str]:
    """Keys of `train` that have no effect in any trial."""
    needs, own = _NEEDS.items(), _model(tree)
    unread = {key for key, (by, _, reads) in needs if not any(map(reads, options(tree, by)))}
    return unread | (own.without if own else frozenset())


def _parse(node: object, key: Key, found: list[Problem]) -> object:
    """The node with distributions parsed; None for an invalid one, reported in `found`."""
    if isinstance(node, list):
        return [_parse(item, (*key, at), found) for at, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    kind = space.kind_of(node)
    if kind is None or _named(key):
        return {name: _parse(value, (*key, name), found) for name, value in node.items()}
    try:
        _check_place(key, node[kind])
        return space.parse(kind, node[kind])
    except ValueError as error:
        found.append(Problem(key, str(error), show(node)))
        return None


def _named(key: Key) -> bool:
    """Whether the keys inside are columns or classes, which may have the name of a distribution."""
    return key == ("features",) or key[:2] == ("decide", "costs")


def _check_place(key: Key, arguments: object) -> None:
    match key:
        case ("model", "type") | ("model", "families", *_) | ("features", _, "type"):
            raise ValueError("is the same for all trials, so no distribution may stand here")
        case ("features", _, maker, *_) if maker in features.made.MAKERS:
            raise ValueError("is the same for all trials, so no distribution may stand here")
        case (name, *_) if name not in SEARCHED:
            where = ", ".join(SEARCHED)
            raise ValueError(f"is the same for all trials: distributions stand in {where} only")
        case (_,) | ("features", _):
            raise ValueError("a distribution stands for one value, not for a section")
    if isinstance(arguments, list) and any(map(space.kind_of, arguments)):
        raise ValueError("a distribution holds values, not distributions")


def _section_laws(tree: space.Tree, wrong: set[Key]) -> Iterator[Problem]:
    """Broken laws of sections, with distributions at their defaults, then at each of their ends.

    `wrong` holds the keys of distributions that could not be parsed.
    """
    defaults = space.defaults(tree)
    elsewhere = defaults.keys() | wrong
    for problem in _broken(space.fill(tree, defaults)):
        if not any(problem.key[:length] in elsewhere for length in range(len(problem.key) + 1)):
            yield problem
    for key, drawn in space.find(tree):
        for at, end in drawn.ends():
            for problem in _broken(space.fill(tree, {**defaults, key: end})):
                if problem.key[: len(key)] == key:
                    inside = (*key, drawn.kind, at, *problem.key[len(key) :])
                    yield dataclasses.replace(_of_distribution(problem, drawn), at=inside)


def _of_distribution(problem: Problem, drawn: space.Distribution) -> Problem:
    """The problem of an end, reworded for the whole distribution."""
    if isinstance(drawn, space.Choice) or problem.got is None:
        return problem
    written = show(drawn)
    if problem.law == problems.WHOLE:
        return dataclasses.replace(problem, got=written, near="{randint: …}")
    return dataclasses.replace(problem, got=f"{problem.got} in {written}", near=None)


def _broken(tree: space.Tree) -> list[Problem]:
    try:
        sections.File.model_validate(tree)
    except pydantic.ValidationError as error:
        return problems.explain(error)
    return []


def _column_laws(tree: space.Tree) -> Iterator[Problem]:
    data, chosen = _section(tree, "data"), _section(tree, "features")
    dropped = data.get("drop")
    for column in chosen:
        if isinstance(dropped, list) and column in dropped:
            yield Problem(("features", column), "must be an input, but is in data.drop")
    target = str(data.get("target"))
    for key, value in _section(chosen, target).items():
        place = ("features", target, key)
        targets = [name for name in columns.REGISTRY if columns.REGISTRY[name].target == name]
        if key != "type":
            yield Problem(place, "the target has no options but type", show(value))
        elif value in columns.REGISTRY and value not in targets:
            law = f"the target must be {', '.join(targets[:-1])} or {targets[-1]}"
            yield Problem(place, law, show(value))


def _task_laws(tree: space.Tree) -> Iterator[Problem]:
    for (key, value, fitting), (other, rival, rivals) in itertools.combinations(_claims(tree), 2):
        if not fitting & rivals:
            law = f"must fit {dotted(key)}: {value}, which is for {' and '.join(sorted(fitting))}"
            yield Problem(other, law, show(rival))


def _claims(tree: space.Tree) -> Iterator[tuple[Key, object, frozenset[str]]]:
    """Yield each key whose value fits some tasks only: key, value, and those tasks."""
    for loss in options(tree, "loss"):
        yield ("train", "loss"), loss, _tasks(loss, losses.REGISTRY, losses.fitting)
    metric = _section(tree, "tune").get("metric")
    yield ("tune", "metric"), metric, _tasks(metric, metrics.REGISTRY, metrics.fitting)
    if positive := _section(tree, "data").get("positive"):
        takes = (name for name in REGISTRY if REGISTRY[name].positive is not None)
        yield ("data", "positive"), positive, frozenset(takes)
    chosen = _section(tree, "decide")
    for key, fitting in decide.FITS.items():
        if chosen.get(key) not in (None, {}, "none"):
            yield ("decide", key), chosen[key], fitting


def _tasks(
    name: object, registered: Container[object], fitting: Callable[[type[Task]], list[str]]
) -> frozenset[str]:
    """The tasks of a loss or a metric; all for `auto` and the user's own."""
    fits_all = name not in registered
    return frozenset(task for task in REGISTRY if fits_all or name in fitting(REGISTRY[task]))


def _grid_laws(tree: space.Tree) -> Iterator[Problem]:
    tune, found = _section(tree, "tune"), space.find(tree)
    if tune.get("search") != "grid":
        return
    if not found:
        yield Problem(("tune", "search"), "grid needs a distribution in features, model or train")
    for key, drawn in found:
        if drawn.size() == math.inf:
            yield Problem(key, "must be choice, randint or quniform for a grid search")
    size = math.prod(drawn.size() for _, drawn in found)
    trials = tune.get("trials", sections.Tune.model_fields["trials"].default)
    if type(trials) is int and trials < size < math.inf:
        law = f"must be at least {size} for a grid search, which tries all combinations"
        yield Problem(("tune", "trials"), law, show(trials))


def _cma_laws(tree: space.Tree) -> Iterator[Problem]:
    tune, found = _section(tree, "tune"), space.find(tree)
    if tune.get("search") != "cma":
        return
    if not found:
        yield Problem(("tune", "search"), "cma needs a distribution in features, model or train")
    for key, drawn in found:
        if isinstance(drawn, space.Choice):
            law = "must be uniform, loguniform, randint or quniform for cma, which models numbers"
            yield Problem(key, law, show({drawn.kind: drawn.arguments}))
    if tune.get("cost") is not None:
        law = "cma models the metric alone: needs search: tpe, random or grid beside it"
        yield Problem(("tune", "cost"), law, "search: cma")


def _tune_laws(tree: space.Tree) -> Iterator[Problem]:
    tune = _section(tree, "tune")
    if tune.get("tolerance") and tune.get("cost") is None:
        yield Problem(("tune", "tolerance"), "needs tune.cost beside it", show(tune["tolerance"]))
    if tune.get("warm_start") and tune.get("search") in ("random", "grid"):
        law = "needs search: tpe or cma beside it, which learn from trials"
        yield Problem(("tune", "warm_start"), law, f"search: {tune['search']}")
    budget, compute = _section(tune, "budget"), _section(tree, "compute")
    if tune.get("budget") is not None and set(budget.values()) <= {None}:
        law = f"must have one of {', '.join(sections.Budget.model_fields)}"
        yield Problem(("tune", "budget"), law)
    for key, other in (("gpu_hours", "gpus"), ("money", "price")):
        if budget.get(key) and not compute.get(other):
            yield Problem(("tune", "budget", key), f"needs compute.{other} beside it")


def _auto_laws(tree: space.Tree) -> Iterator[Problem]:
    """Spaces of several models are searched by what takes numbers and choices alike."""
    tune = _section(tree, "tune")
    for key, able in (
        ("search", ("tpe", "random")),
        ("scheduler", ("asha", "hyperband", "median", "none")),
    ):
        if tune.get(key, able[0]) not in able:
            law = f"must be {', '.join(able[:-1])} or {able[-1]} beside model.type: auto"
            yield Problem(("tune", key), law, show(tune[key]))


def _pbt_laws(tree: space.Tree) -> Iterator[Problem]:
    """Trials of a population exchange weights, so they differ in nothing that gives these shape."""
    tune, found = _section(tree, "tune"), space.find(tree)
    if tune.get("scheduler") != "pbt":
        return
    search = tune.get("search", sections.Tune.model_fields["search"].default)
    if search != "random":
        law = "pbt needs search: random beside it"
        yield Problem(("tune", "scheduler"), law, f"search: {search}")
    workers = _section(tree, "compute").get("workers", 1)
    if workers != 1:
        law = "pbt needs compute.workers: 1 beside it"
        yield Problem(("tune", "scheduler"), law, f"workers: {show(workers)}")
    own = _model(tree)
    rates = own.rates if own else ()
    alike = [("train", key) for key in sorted(sections.Train.alike)]
    alike += [("model", key) for key in sorted(rates)]
    names = ", ".join(map(dotted, alike))
    if not found:
        yield Problem(("tune", "scheduler"), f"pbt needs a distribution in one of {names}")
    for key, _ in found:
        if key not in alike:
            yield Problem(key, f"pbt changes {names} only: must be one value")


def _dependent_laws(tree: space.Tree) -> Iterator[Problem]:
    own = _model(tree)
    ignored = own.without if own else frozenset()
    for key in sorted(without_effect(tree) & _section(tree, "train").keys()):
        if own and key in ignored:
            yield Problem(("train", key), f"would do nothing beside model.type: {own.tag}")
            continue
        other, law, _ = _NEEDS[key]
        got = " or ".join(map(str, options(tree, other)))
        yield Problem(("train", key), law, f"{other}: {got}")


def _single_laws(tree: space.Tree) -> Iterator[Problem]:
    """A model that one process trains on CPUs takes no other resources."""
    own, compute = _model(tree), _section(tree, "compute")
    if own is None or not own.single:
        return
    for key, only in (("workers", 1), ("gpus", 0), ("precision", "fp32")):
        if compute.get(key, only) != only:
            law = f"must be {only} beside model.type: {own.tag}"
            yield Problem(("compute", key), law, show(compute[key]))


def _worker_laws(tree: space.Tree) -> Iterator[Problem]:
    """Each worker of a trial has at least `MIN_SHARE` rows of each batch."""
    workers = _section(tree, "compute").get("workers")
    most = workers.get("max") if isinstance(workers, dict) else workers
    least = min((size for size in options(tree, "batch_size") if type(size) is int), default=None)
    if type(most) is int and least and most > 1 and most * MIN_SHARE > least:
        largest = max(1, least // MIN_SHARE)
        law = f"must leave each worker {MIN_SHARE} rows of train.batch_size: {least}"
        yield Problem(("compute", "workers"), f"{law}, so be at most {largest}", show(workers))


def _rate_laws(tree: space.Tree) -> Iterator[Problem]:
    """A warm-up ends before training does, and a plateau before anything else ends the trial."""
    epochs = min(_numbers(options(tree, "epochs")), default=math.inf)
    warmup = max(_numbers(options(tree, "warmup")), default=0)
    if warmup and warmup >= epochs:
        law = f"must be below train.epochs, {epochs:g}"
        yield Problem(("train", "warmup"), law, f"{warmup:g}")
    if "plateau" not in options(tree, "schedule"):
        return
    patience = max(_patience(_section(tree, "train").get("plateau"), sections.Plateau), default=0)
    stopping = [_patience(one, sections.EarlyStopping) for one in options(tree, "early_stopping")]
    limits = {"train.epochs": epochs}
    limits["train.early_stopping.patience"] = min(itertools.chain(*stopping), default=math.inf)
    for name, limit in limits.items():
        if patience >= limit:
            law = f"must be below {name}, {limit:g}, which ends the trial before the rate falls"
            yield Problem(("train", "plateau", "patience"), law, f"{patience:g}")


def _patience(node: object, section: type[sections.Plateau | sections.EarlyStopping]) -> list[Any]:
    """All values of a section's patience; none without the section."""
    default = section.model_fields["patience"].default
    if node is None and section is sections.EarlyStopping:
        return []
    value = node.get("patience", default) if isinstance(node, dict) else default
    ends = value.ends() if isinstance(value, space.Distribution) else [((), value)]
    return _numbers([end for _, end in ends])


def _numbers(values: list[Any]) -> list[Any]:
    """Those that are numbers; problems of the others are reported elsewhere."""
    return [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]


def _shard_laws(tree: space.Tree) -> Iterator[Problem]:
    """The state of an optimizer of one's own may have any shape, which cannot be sharded."""
    if _section(tree, "compute").get("strategy") != "fsdp":
        return
    for name in options(tree, "optimizer"):
        if isinstance(name, str) and code.is_name(name):
            known = ", ".join(optimizers.REGISTRY)
            law = f"must be one of {known} beside compute.strategy: fsdp"
            yield Problem(("train", "optimizer"), law, show(name))


def _schedule_laws(tree: space.Tree) -> Iterator[Problem]:
    serve = _section(tree, "serve")
    most = _section(serve, "replicas").get("max", endpoint.Replicas.model_fields["max"].default)
    windows = serve.get("schedules")
    for at, window in enumerate(windows if isinstance(windows, list) else []):
        least = window.get("min") if isinstance(window, dict) else None
        if type(least) is int and type(most) is int and least > most:
            law = f"must be at most serve.replicas.max, {most}"
            yield Problem(("serve", "schedules", at, "min"), law, show(least))


def _is_smoothed(loss: object) -> bool:
    """Whether a loss reads `label_smoothing`; true for unknown names, reported elsewhere."""
    if isinstance(loss, str) and loss in losses.REGISTRY:
        return "label_smoothing" in losses.REGISTRY[loss].options
    return not (isinstance(loss, str) and code.is_name(loss))


_NEEDS: dict[str, tuple[str, str, Callable[[object], bool]]] = {
    "momentum": ("optimizer", "needs optimizer: sgd beside it", lambda one: one == "sgd"),
    "plateau": ("schedule", "needs schedule: plateau beside it", lambda one: one == "plateau"),
    "label_smoothing": ("loss", "needs a cross-entropy loss beside it", _is_smoothed),
}
"""Keys of `train` that need certain values of another key: that key, the law, and its test."""


def _model(tree: space.Tree) -> type[models.Options] | None:
    """The section of the file's model; None for code of the user's, and unknown names."""
    kind = str(_section(tree, "model").get("type", sections.MODEL))
    return models.REGISTRY[kind].options if kind in models.REGISTRY else None


def _section(tree: space.Tree, name: str) -> space.Tree:
    section = tree.get(name)
    return section if isinstance(section, dict) else {}
