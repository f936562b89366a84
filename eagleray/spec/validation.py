"""Every law of the experiment file, checked on one document.

A section's own laws are in its model. Here: where distributions may stand, that each of their ends
is valid, and laws between sections.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import pydantic

from eagleray import code
from eagleray.learn import columns, features, losses, metrics, models, optimizers
from eagleray.learn.needs import Need
from eagleray.learn.tasks import CLASSES, RANKING, REGISTRY, Task
from eagleray.spec import (
    decide,
    document,
    endpoint,
    problems,
    reading,
    sections,
    space,
    tune_laws,
)
from eagleray.spec.document import Key, dotted
from eagleray.spec.problems import Problem, show
from eagleray.spec.train import EarlyStopping, Plateau
from eagleray.spec.tune import UNREFIT

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
    for law in (
        _column_laws,
        _option_laws,
        _task_laws,
        _quantile_laws,
        _recommend_laws,
        tune_laws.check,
        _dependent_laws,
        _single_laws,
        _worker_laws,
        _rate_laws,
        _shard_laws,
        _schedule_laws,
    ):
        found += law(tree)
    return tree, found


def tasks(tree: space.Tree) -> frozenset[str]:
    """The tasks that all keys of the file are for."""
    return frozenset(REGISTRY).intersection(*(fitting for *_, fitting in _claims(tree)))


def without_effect(tree: space.Tree) -> set[str]:
    """Keys of `train` that have no effect in any trial."""
    needs, own = _NEEDS.items(), reading.model(tree)
    unread = {
        key for key, (by, _, reads) in needs if not any(map(reads, reading.options(tree, by)))
    }
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
        case ("features", _, maker, *_) if maker in (*features.made.MAKERS, *features.own.OPTIONS):
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
    usual = _broken(space.fill(tree, defaults))
    for problem in usual:
        if not any(problem.key[:length] in elsewhere for length in range(len(problem.key) + 1)):
            yield problem
    for key, drawn in space.find(tree):
        for at, end in drawn.ends():
            for problem in _broken(space.fill(tree, {**defaults, key: end})):
                if problem.key[: len(key)] == key:
                    inside = (*key, drawn.kind, at, *problem.key[len(key) :])
                    yield dataclasses.replace(_of_distribution(problem, drawn), at=inside)
                elif problem not in usual and key[: len(problem.key)] == problem.key:
                    yield dataclasses.replace(problem, at=(*key, drawn.kind, at))


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
    data, chosen = reading.section(tree, "data"), reading.section(tree, "features")
    dropped = data.get("drop")
    for column in chosen:
        if isinstance(dropped, list) and column in dropped:
            yield Problem(("features", column), "must be an input, but is in data.drop")
    target = str(data.get("target"))
    for key, value in reading.section(chosen, target).items():
        place = ("features", target, key)
        targets = [name for name in columns.REGISTRY if columns.REGISTRY[name].target == name]
        if key != "type":
            yield Problem(place, "the target has no options but type", show(value))
        elif value in columns.REGISTRY and value not in targets:
            law = f"the target must be {', '.join(targets[:-1])} or {targets[-1]}"
            yield Problem(place, law, show(value))


def _option_laws(tree: space.Tree) -> Iterator[Problem]:
    """Options of columns and of the model that would do nothing beside all values of another."""
    for column, chosen in reading.section(tree, "features").items():
        for kind in (columns.REGISTRY[name] for name in columns.REGISTRY):
            options = chosen if isinstance(chosen, dict) else {}
            yield from _unneeded(("features", column), options, kind.options, kind.dependent)
    if own := reading.model(tree):
        yield from _unneeded(("model",), reading.section(tree, "model"), own, own.dependent)


def _unneeded(
    at: Key,
    options: space.Tree,
    section: type[pydantic.BaseModel],
    dependent: Mapping[str, Need],
) -> Iterator[Problem]:
    defaults = {key: one.default for key, one in section.model_fields.items()}
    for key, need in dependent.items():
        values = reading.ends(options.get(need.option, defaults[need.option]))
        unset = key not in options or _is_default(options[key], defaults[key])
        if not unset and not any(map(need.fits, values)):
            got = " or ".join(one if isinstance(one, str) else show(one) for one in values)
            yield Problem((*at, key), need.law, f"{need.option}: {got}")


def _is_default(value: object, default: object) -> bool:
    """Whether a value is what a key has that is not set, as in a file that `check` prints."""
    plain = list(default) if isinstance(default, tuple) else default
    return bool(value == plain)


def _task_laws(tree: space.Tree) -> Iterator[Problem]:
    for (key, value, fitting), (other, rival, rivals) in itertools.combinations(_claims(tree), 2):
        if not fitting & rivals:
            shown = value if isinstance(value, str) else show(value)
            law = f"must fit {dotted(key)}: {shown}, which is for {' and '.join(sorted(fitting))}"
            yield Problem(other, law, show(rival))


def _quantile_laws(tree: space.Tree) -> Iterator[Problem]:
    """A loss for quantiles alone needs to know which."""
    if reading.section(tree, "data").get("quantiles"):
        return
    for loss in reading.options(tree, "loss"):
        fitting = _tasks(loss, losses.REGISTRY, losses.fitting)
        if fitting and all(REGISTRY[name].takes_quantiles for name in fitting):
            law = "needs data.quantiles beside it, such as [0.05, 0.5, 0.95]"
            yield Problem(("train", "loss"), law, show(loss))


def _recommend_laws(tree: space.Tree) -> Iterator[Problem]:
    """A recommender needs to know the user, whose column has no other use; it mixes no rows."""
    own, given = reading.model(tree), reading.section(tree, "data").get("recommend")
    kind = own.tag if own else None
    if own is not None and models.fitting(str(kind)) == RANKING and given is None:
        yield Problem(("data", "recommend"), f"is required beside model.type: {kind}")
    mixed = [share for share in _numbers(reading.options(tree, "mixup")) if share]
    if given is not None and mixed:
        law = "must be 0 beside data.recommend: users and items are names, which cannot be mixed"
        yield Problem(("train", "mixup"), law, show(max(mixed)))
    user = given.get("user") if isinstance(given, dict) else None
    if isinstance(user, str) and user in reading.section(tree, "features"):
        law = "must be left out: each user has a vector"
        yield Problem(("features", user), law)


def _claims(tree: space.Tree) -> Iterator[tuple[Key, object, frozenset[str]]]:
    """Yield each key whose value fits some tasks only: key, value, and those tasks."""
    if quantiles := reading.section(tree, "data").get("quantiles"):
        takes = (name for name in REGISTRY if REGISTRY[name].takes_quantiles)
        yield ("data", "quantiles"), quantiles, frozenset(takes)
    for loss in reading.options(tree, "loss"):
        yield ("train", "loss"), loss, _tasks(loss, losses.REGISTRY, losses.fitting)
    metric = reading.section(tree, "tune").get("metric")
    yield ("tune", "metric"), metric, _tasks(metric, metrics.REGISTRY, metrics.fitting)
    if positive := reading.section(tree, "data").get("positive"):
        takes = (name for name in REGISTRY if REGISTRY[name].positive is not None)
        yield ("data", "positive"), positive, frozenset(takes)
    if recommend := reading.section(reading.section(tree, "data"), "recommend"):
        yield ("data", "recommend"), f"user: {recommend.get('user')}", RANKING
    kind = reading.model_type(tree)
    if kind in models.REGISTRY or code.is_name(kind):
        yield ("model", "type"), kind, models.fitting(kind)
    for key in sorted({"class_weights", "sampling"} - without_effect(tree)):
        for chosen in reading.options(tree, key):
            if chosen != "none":
                yield ("train", key), chosen, CLASSES
    for key, value, fitting in decide.claims(reading.section(tree, "decide")):
        yield ("decide", key), value, fitting


def _tasks(
    name: object, registered: Container[object], fitting: Callable[[type[Task]], list[str]]
) -> frozenset[str]:
    """The tasks of a loss or a metric; all for `auto` and the user's own."""
    fits_all = name not in registered
    return frozenset(task for task in REGISTRY if fits_all or name in fitting(REGISTRY[task]))


def _dependent_laws(tree: space.Tree) -> Iterator[Problem]:
    own = reading.model(tree)
    ignored = own.without if own else frozenset()
    for key in sorted(without_effect(tree) & reading.section(tree, "train").keys()):
        if own and key in ignored:
            yield Problem(("train", key), f"would do nothing beside model.type: {own.tag}")
            continue
        other, law, _ = _NEEDS[key]
        got = " or ".join(map(str, reading.options(tree, other)))
        yield Problem(("train", key), law, f"{other}: {got}")


def _single_laws(tree: space.Tree) -> Iterator[Problem]:
    """A model that one process trains on CPUs takes no other resources."""
    own, compute = reading.model(tree), reading.section(tree, "compute")
    if own is None or not own.single:
        return
    for key, only in (("workers", 1), ("gpus", 0), ("precision", "fp32")):
        if compute.get(key, only) != only:
            law = f"must be {only} beside model.type: {own.tag}"
            yield Problem(("compute", key), law, show(compute[key]))


def _worker_laws(tree: space.Tree) -> Iterator[Problem]:
    """Each worker of a trial has at least `MIN_SHARE` rows of each batch."""
    workers = reading.section(tree, "compute").get("workers")
    most = workers.get("max") if isinstance(workers, dict) else workers
    least = min(
        (size for size in reading.options(tree, "batch_size") if type(size) is int), default=None
    )
    if type(most) is int and least and most > 1 and most * MIN_SHARE > least:
        largest = max(1, least // MIN_SHARE)
        law = f"must leave each worker {MIN_SHARE} rows of train.batch_size: {least}"
        yield Problem(("compute", "workers"), f"{law}, so be at most {largest}", show(workers))


def _rate_laws(tree: space.Tree) -> Iterator[Problem]:
    """A warm-up ends before training does, and a plateau before anything else ends the trial."""
    epochs = min(_numbers(reading.options(tree, "epochs")), default=math.inf)
    warmup = max(_numbers(reading.options(tree, "warmup")), default=0)
    if warmup and warmup >= epochs:
        law = f"must be below train.epochs, {epochs:g}"
        yield Problem(("train", "warmup"), law, f"{warmup:g}")
    if "plateau" not in reading.options(tree, "schedule"):
        return
    tune = reading.section(tree, "tune")
    if anew := next(
        (key for key, able in UNREFIT.items() if tune.get(key, able[0]) not in able), None
    ):
        law = f"plateau cannot stand beside tune.{anew}, whose winner is trained anew without"
        yield Problem(("train", "schedule"), f"{law} rows that epochs are judged by")
    patience = max(_patience(reading.section(tree, "train").get("plateau"), Plateau), default=0)
    stopping = [_patience(one, EarlyStopping) for one in reading.options(tree, "early_stopping")]
    limits = {"train.epochs": epochs}
    limits["train.early_stopping.patience"] = min(itertools.chain(*stopping), default=math.inf)
    for name, limit in limits.items():
        if patience >= limit:
            law = f"must be below {name}, {limit:g}, which ends the trial before the rate falls"
            yield Problem(("train", "plateau", "patience"), law, f"{patience:g}")


def _patience(node: object, section: type[Plateau | EarlyStopping]) -> list[Any]:
    """All values of a section's patience; none without the section."""
    default = section.model_fields["patience"].default
    if node is None and section is EarlyStopping:
        return []
    value = node.get("patience", default) if isinstance(node, dict) else default
    ends = value.ends() if isinstance(value, space.Distribution) else [((), value)]
    return _numbers([end for _, end in ends])


def _numbers(values: list[Any]) -> list[Any]:
    """Those that are numbers; problems of the others are reported elsewhere."""
    return [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]


def _shard_laws(tree: space.Tree) -> Iterator[Problem]:
    """The state of an optimizer of one's own may have any shape, which cannot be sharded."""
    if reading.section(tree, "compute").get("strategy") != "fsdp":
        return
    for name in reading.options(tree, "optimizer"):
        if isinstance(name, str) and code.is_name(name):
            known = ", ".join(optimizers.REGISTRY)
            law = f"must be one of {known} beside compute.strategy: fsdp"
            yield Problem(("train", "optimizer"), law, show(name))


def _schedule_laws(tree: space.Tree) -> Iterator[Problem]:
    serve = reading.section(tree, "serve")
    most = reading.section(serve, "replicas").get(
        "max", endpoint.Replicas.model_fields["max"].default
    )
    windows = serve.get("schedules")
    for at, window in enumerate(windows if isinstance(windows, list) else []):
        least = window.get("min") if isinstance(window, dict) else None
        if type(least) is int and type(most) is int and least > most:
            law = f"must be at most serve.replicas.max, {most}"
            yield Problem(("serve", "schedules", at, "min"), law, show(least))


def _reads(option: str, *, auto: bool) -> Callable[[object], bool]:
    """Whether a loss reads an option of `train`; true for unknown names, reported elsewhere."""

    def reads(loss: object) -> bool:
        if isinstance(loss, str) and loss in losses.REGISTRY:
            return option in losses.REGISTRY[loss].options
        return auto if loss == "auto" else not (isinstance(loss, str) and code.is_name(loss))

    return reads


_NEEDS: dict[str, tuple[str, str, Callable[[object], bool]]] = {
    "momentum": ("optimizer", "needs optimizer: sgd beside it", lambda one: one == "sgd"),
    "plateau": ("schedule", "needs schedule: plateau beside it", lambda one: one == "plateau"),
    "label_smoothing": (
        "loss",
        "needs a cross-entropy loss beside it",
        _reads("label_smoothing", auto=True),
    ),
    "class_weights": (
        "loss",
        "needs a cross-entropy loss or focal beside it",
        _reads("class_weights", auto=True),
    ),
    "focal_gamma": ("loss", "needs loss: focal beside it", _reads("focal_gamma", auto=False)),
}
"""Keys of `train` that need certain values of another key: that key, the law, and its test."""
