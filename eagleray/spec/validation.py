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
from eagleray.spec import decide, document, endpoint, problems, sections, space
from eagleray.spec.document import Key, dotted
from eagleray.spec.problems import Problem, show
from eagleray.spec.train import EarlyStopping, Plateau, Train
from eagleray.spec.tune import Budget, Tune

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
        _option_laws,
        _task_laws,
        _quantile_laws,
        _recommend_laws,
        *((_auto_laws,) if _model(tree) is models.Auto else searching),
        _tune_laws,
        _ensemble_laws,
        _fold_laws,
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
    return _ends(_section(tree, "train").get(key, _default(tree, key)))


def values(tree: space.Tree, key: Key) -> list[Any]:
    """All values that the file sets at a key, as `options` has them; None where it sets none."""
    node: Any = tree
    for part in key:
        node = node.get(part) if isinstance(node, dict) else None
    return _ends(node)


def _ends(node: object) -> list[Any]:
    return [end for _, end in node.ends()] if isinstance(node, space.Distribution) else [node]


def _default(tree: space.Tree, key: str) -> object:
    """The default of `train.key` beside the file's model."""
    own = _model(tree)
    return (own.train if own else {}).get(key, Train.model_fields[key].default)


def tasks(tree: space.Tree) -> frozenset[str]:
    """The tasks that all keys of the file are for."""
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


def _option_laws(tree: space.Tree) -> Iterator[Problem]:
    """Options of columns and of the model that would do nothing beside all values of another."""
    for column, chosen in _section(tree, "features").items():
        for kind in (columns.REGISTRY[name] for name in columns.REGISTRY):
            options = chosen if isinstance(chosen, dict) else {}
            yield from _unneeded(("features", column), options, kind.options, kind.dependent)
    if own := _model(tree):
        yield from _unneeded(("model",), _section(tree, "model"), own, own.dependent)


def _unneeded(
    at: Key,
    options: space.Tree,
    section: type[pydantic.BaseModel],
    dependent: Mapping[str, Need],
) -> Iterator[Problem]:
    defaults = {key: one.default for key, one in section.model_fields.items()}
    for key, need in dependent.items():
        values = _ends(options.get(need.option, defaults[need.option]))
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
    if _section(tree, "data").get("quantiles"):
        return
    for loss in options(tree, "loss"):
        fitting = _tasks(loss, losses.REGISTRY, losses.fitting)
        if fitting and all(REGISTRY[name].takes_quantiles for name in fitting):
            law = "needs data.quantiles beside it, such as [0.05, 0.5, 0.95]"
            yield Problem(("train", "loss"), law, show(loss))


def _recommend_laws(tree: space.Tree) -> Iterator[Problem]:
    """A recommender needs to know the user, whose column has no other use."""
    own, given = _model(tree), _section(tree, "data").get("recommend")
    kind = own.tag if own else None
    if own is not None and models.fitting(str(kind)) == RANKING and given is None:
        yield Problem(("data", "recommend"), f"is required beside model.type: {kind}")
    user = given.get("user") if isinstance(given, dict) else None
    if isinstance(user, str) and user in _section(tree, "features"):
        law = "must be left out: each user has a vector"
        yield Problem(("features", user), law)


def _claims(tree: space.Tree) -> Iterator[tuple[Key, object, frozenset[str]]]:
    """Yield each key whose value fits some tasks only: key, value, and those tasks."""
    if quantiles := _section(tree, "data").get("quantiles"):
        takes = (name for name in REGISTRY if REGISTRY[name].takes_quantiles)
        yield ("data", "quantiles"), quantiles, frozenset(takes)
    for loss in options(tree, "loss"):
        yield ("train", "loss"), loss, _tasks(loss, losses.REGISTRY, losses.fitting)
    metric = _section(tree, "tune").get("metric")
    yield ("tune", "metric"), metric, _tasks(metric, metrics.REGISTRY, metrics.fitting)
    if positive := _section(tree, "data").get("positive"):
        takes = (name for name in REGISTRY if REGISTRY[name].positive is not None)
        yield ("data", "positive"), positive, frozenset(takes)
    if recommend := _section(_section(tree, "data"), "recommend"):
        yield ("data", "recommend"), f"user: {recommend.get('user')}", RANKING
    kind = str(_section(tree, "model").get("type", sections.MODEL))
    if kind in models.REGISTRY or code.is_name(kind):
        yield ("model", "type"), kind, models.fitting(kind)
    for key in sorted({"class_weights", "sampling"} - without_effect(tree)):
        for chosen in options(tree, key):
            if chosen != "none":
                yield ("train", key), chosen, CLASSES
    for key, value, fitting in decide.claims(_section(tree, "decide")):
        yield ("decide", key), value, fitting


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
    trials = tune.get("trials", Tune.model_fields["trials"].default)
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


_SINGLE = {
    "cost": (None, "which chooses one trial"),
    "refit": (False, "which trains one trial anew"),
    "folds": (1, "whose winner is trained anew"),
}
"""Keys of `tune` beside which the winner is one trial, but for a value, and why."""


def _tune_laws(tree: space.Tree) -> Iterator[Problem]:
    tune = _section(tree, "tune")
    if tune.get("tolerance") and tune.get("cost") is None:
        yield Problem(("tune", "tolerance"), "needs tune.cost beside it", show(tune["tolerance"]))
    if tune.get("warm_start") and tune.get("search") in ("random", "grid"):
        law = "needs search: tpe or cma beside it, which learn from trials"
        yield Problem(("tune", "warm_start"), law, f"search: {tune['search']}")
    budget, compute = _section(tune, "budget"), _section(tree, "compute")
    if tune.get("budget") is not None and set(budget.values()) <= {None}:
        law = f"must have one of {', '.join(Budget.model_fields)}"
        yield Problem(("tune", "budget"), law)
    for key, other in (("gpu_hours", "gpus"), ("money", "price")):
        if budget.get(key) and not compute.get(other):
            yield Problem(("tune", "budget", key), f"needs compute.{other} beside it")


def _ensemble_laws(tree: space.Tree) -> Iterator[Problem]:
    tune = _section(tree, "tune")
    members = _section(tune, "ensemble").get("members", "auto")
    if members in ("auto", 1):
        return
    reasons = [
        f"tune.{key}, {why}"
        for key, (unless, why) in _SINGLE.items()
        if tune.get(key, unless) != unless
    ]
    if _section(tree, "data").get("recommend"):
        reasons.append("data.recommend: lists of items have no mean")
    for reason in reasons:
        law = f"cannot stand beside {reason}"
        yield Problem(("tune", "ensemble", "members"), law, show(members))


def _fold_laws(tree: space.Tree) -> Iterator[Problem]:
    tune, workers = _section(tree, "tune"), _section(tree, "compute").get("workers", 1)
    folds = tune.get("folds", 1)
    if type(folds) is not int or folds <= 1:
        return
    if _section(tree, "data").get("recommend"):
        law = "must be 1 beside data.recommend, which parts the rows of each user"
        yield Problem(("tune", "folds"), law, show(folds))
    if workers != 1:
        yield Problem(
            ("compute", "workers"), f"must be 1 beside tune.folds: {folds}", show(workers)
        )


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
    search = tune.get("search", Tune.model_fields["search"].default)
    if search != "random":
        law = "pbt needs search: random beside it"
        yield Problem(("tune", "scheduler"), law, f"search: {search}")
    workers = _section(tree, "compute").get("workers", 1)
    if workers != 1:
        law = "pbt needs compute.workers: 1 beside it"
        yield Problem(("tune", "scheduler"), law, f"workers: {show(workers)}")
    for key, only in (("folds", 1), ("refit", False)):
        if tune.get(key, only) != only:
            law = f"pbt needs {key}: {show(only)} beside it"
            yield Problem(("tune", "scheduler"), law, f"{key}: {show(tune[key])}")
    own = _model(tree)
    rates = own.rates if own else ()
    alike = [("train", key) for key in sorted(Train.alike)]
    alike += [("model", key) for key in sorted(rates)]
    names = ", ".join(map(dotted, alike))
    if not found:
        yield Problem(("tune", "scheduler"), f"pbt needs a distribution in one of {names}")
    for place, _ in found:
        if place not in alike:
            yield Problem(place, f"pbt changes {names} only: must be one value")


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
    tune = _section(tree, "tune")
    unlike = (("folds", 1), ("refit", False))
    if anew := next((key for key, only in unlike if tune.get(key, only) != only), None):
        law = f"plateau cannot stand beside tune.{anew}, whose winner is trained anew without"
        yield Problem(("train", "schedule"), f"{law} rows that epochs are judged by")
    patience = max(_patience(_section(tree, "train").get("plateau"), Plateau), default=0)
    stopping = [_patience(one, EarlyStopping) for one in options(tree, "early_stopping")]
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


def _model(tree: space.Tree) -> type[models.Options] | None:
    """The section of the file's model; None for code of the user's, and unknown names."""
    kind = str(_section(tree, "model").get("type", sections.MODEL))
    return models.REGISTRY[kind].options if kind in models.REGISTRY else None


def _section(tree: space.Tree, name: str) -> space.Tree:
    section = tree.get(name)
    return section if isinstance(section, dict) else {}
