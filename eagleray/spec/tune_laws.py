"""Laws of the section `tune` with other sections."""

import math
from collections.abc import Iterator

from eagleray.learn import models
from eagleray.spec import reading, space
from eagleray.spec.document import dotted
from eagleray.spec.problems import Problem, show
from eagleray.spec.train import Train
from eagleray.spec.tune import UNREFIT, Budget, Tune


def check(tree: space.Tree) -> Iterator[Problem]:
    """The broken laws of `tune`."""
    searched = (_grid_laws, _cma_laws, _pbt_laws)
    for law in (
        *((_auto_laws,) if reading.model(tree) is models.Auto else searched),
        _tune_laws,
        _ensemble_laws,
        _fold_laws,
    ):
        yield from law(tree)


def _grid_laws(tree: space.Tree) -> Iterator[Problem]:
    tune, found = reading.section(tree, "tune"), space.find(tree)
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
    tune, found = reading.section(tree, "tune"), space.find(tree)
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
    "folds": (1, "whose winner is trained anew"),
}
"""Keys of `tune` beside which the winner is one trial, but for a value, and why."""


def _tune_laws(tree: space.Tree) -> Iterator[Problem]:
    tune = reading.section(tree, "tune")
    if tune.get("tolerance") and tune.get("cost") is None:
        yield Problem(("tune", "tolerance"), "needs tune.cost beside it", show(tune["tolerance"]))
    if tune.get("warm_start") and tune.get("search") in ("random", "grid"):
        law = "needs search: tpe or cma beside it, which learn from trials"
        yield Problem(("tune", "warm_start"), law, f"search: {tune['search']}")
    budget, compute = reading.section(tune, "budget"), reading.section(tree, "compute")
    if tune.get("budget") is not None and set(budget.values()) <= {None}:
        law = f"must have one of {', '.join(Budget.model_fields)}"
        yield Problem(("tune", "budget"), law)
    for key, other in (("gpu_hours", "gpus"), ("money", "price")):
        if budget.get(key) and not compute.get(other):
            yield Problem(("tune", "budget", key), f"needs compute.{other} beside it")


def _ensemble_laws(tree: space.Tree) -> Iterator[Problem]:
    tune = reading.section(tree, "tune")
    members = reading.section(tune, "ensemble").get("members", "auto")
    if members in ("auto", 1):
        return
    reasons = [
        f"tune.{key}, {why}"
        for key, (unless, why) in _SINGLE.items()
        if tune.get(key, unless) != unless
    ]
    if reading.section(tree, "data").get("recommend"):
        reasons.append("data.recommend: lists of items have no mean")
    for reason in reasons:
        law = f"cannot stand beside {reason}"
        yield Problem(("tune", "ensemble", "members"), law, show(members))


def _fold_laws(tree: space.Tree) -> Iterator[Problem]:
    tune, workers = (
        reading.section(tree, "tune"),
        reading.section(tree, "compute").get("workers", 1),
    )
    folds = tune.get("folds", 1)
    if type(folds) is not int or folds <= 1:
        return
    if reading.section(tree, "data").get("recommend"):
        law = "must be 1 beside data.recommend, which parts the rows of each user"
        yield Problem(("tune", "folds"), law, show(folds))
    if workers != 1:
        yield Problem(
            ("compute", "workers"), f"must be 1 beside tune.folds: {folds}", show(workers)
        )


def _auto_laws(tree: space.Tree) -> Iterator[Problem]:
    """Spaces of several models are searched by what takes numbers and choices alike."""
    tune = reading.section(tree, "tune")
    for key, able in (
        ("search", ("tpe", "random")),
        ("scheduler", ("asha", "hyperband", "median", "none")),
    ):
        if tune.get(key, able[0]) not in able:
            law = f"must be {', '.join(able[:-1])} or {able[-1]} beside model.type: auto"
            yield Problem(("tune", key), law, show(tune[key]))


def _pbt_laws(tree: space.Tree) -> Iterator[Problem]:
    """Trials of a population exchange weights, so they differ in nothing that gives these shape."""
    tune, found = reading.section(tree, "tune"), space.find(tree)
    if tune.get("scheduler") != "pbt":
        return
    search = tune.get("search", Tune.model_fields["search"].default)
    if search != "random":
        law = "pbt needs search: random beside it"
        yield Problem(("tune", "scheduler"), law, f"search: {search}")
    workers = reading.section(tree, "compute").get("workers", 1)
    if workers != 1:
        law = "pbt needs compute.workers: 1 beside it"
        yield Problem(("tune", "scheduler"), law, f"workers: {show(workers)}")
    for key, able in UNREFIT.items():
        if tune.get(key, able[0]) not in able:
            law = f"pbt needs {key}: {show(able[0])} beside it"
            yield Problem(("tune", "scheduler"), law, f"{key}: {show(tune[key])}")
    own = reading.model(tree)
    rates = own.rates if own else ()
    alike = [("train", key) for key in sorted(Train.alike)]
    alike += [("model", key) for key in sorted(rates)]
    names = ", ".join(map(dotted, alike))
    if not found:
        yield Problem(("tune", "scheduler"), f"pbt needs a distribution in one of {names}")
    for place, _ in found:
        if place not in alike:
            yield Problem(place, f"pbt changes {names} only: must be one value")
