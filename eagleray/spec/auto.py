"""`model.type: auto`: the spaces of several models as one, of which a trial takes one model.

A trial draws values for its own model; those of the others stand at their defaults. The spaces of
`tabm` and `mlp` are those of their papers (arXiv:2410.24210, arXiv:2106.11959), narrowed to small
models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eagleray.learn.models.options import Auto, Boosting
from eagleray.spec import space

FAMILY = "family"
SPACES: dict[str, space.Tree] = {
    "boosting": {
        "leaves": {"choice": [31, 15, 63, 127]},
        "min_rows": {"choice": [20, 5, 60]},
        "row_share": {"uniform": [0.6, 1.0]},
        "column_share": {"uniform": [0.4, 1.0]},
        "l2": {"loguniform": [1e-3, 10.0]},
        "train": {"lr": {"loguniform": [0.015, 0.1]}, "early_stopping": {"patience": 4}},
    },
    "text": {
        "embedding": {"choice": [32, 64]},
        "hidden": {"choice": [[64], []]},
        "dropout": {"uniform": [0.1, 0.5]},
        "train": {
            "lr": {"loguniform": [1e-3, 5e-3]},
            "weight_decay": {"loguniform": [1e-5, 1e-2]},
            "optimizer": "adamw",
            "early_stopping": {"patience": 4},
        },
    },
    "image": {
        "channels": {"choice": [[32, 64], [16, 32], [24, 48]]},
        "hidden": {"choice": [[64], [128]]},
        "dropout": {"uniform": [0.2, 0.5]},
        "train": {
            "lr": {"loguniform": [1e-3, 8e-3]},
            "weight_decay": {"loguniform": [1e-3, 1e-1]},
            "optimizer": "adamw",
            "label_smoothing": 0.05,
            "early_stopping": {"patience": 4},
        },
    },
    "tabm": {
        "members": 16,
        "width": {"choice": [128, 64, 256]},
        "blocks": {"choice": [2, 1, 3]},
        "dropout": {"uniform": [0.0, 0.4]},
        "bins": {"choice": [48, 16]},
        "train": {
            "lr": {"loguniform": [1e-3, 5e-3]},
            "weight_decay": {"loguniform": [1e-4, 1e-1]},
            "early_stopping": {"patience": 4},
        },
    },
    "mlp": {
        "hidden": {"choice": [[128], [256], [256, 128]]},
        "dropout": {"uniform": [0.0, 0.5]},
        "activation": "silu",
        "train": {
            "lr": {"loguniform": [1e-3, 2e-2]},
            "weight_decay": {"loguniform": [1e-5, 1e-1]},
            "optimizer": "adamw",
            "batch_size": 256,
            "early_stopping": {"patience": 4},
        },
    },
}
"""By the name of a model: its options, and its part of `train`. Defaults come first."""
PACE = 1.25
"""Trees of an epoch, times their learning rate: a low rate is ahead in the end and behind in the
first trees, so schedulers compare what trees have learned, not how many there are (ADR 41)."""


def expanded(searched: space.Tree) -> space.Tree:
    """The sections with the spaces of the models that `auto` searches; others as they are."""
    model: space.Tree = searched.get("model", {})
    if not _is_auto(model):
        return searched
    return _of(searched, model.get("families") or list(SPACES))


def narrowed(searched: space.Tree, fits: Callable[[str], bool]) -> space.Tree:
    """The expanded sections with those models alone that fit."""
    return _of(searched, [name for name in searched["model"][FAMILY].grid() if fits(name)])


def chosen(sections: space.Tree) -> space.Tree:
    """The sections of one trial, with the model that it takes; without `auto` as they are."""
    model: space.Tree = sections.get("model", {})
    if not _is_auto(model):
        return sections
    own = dict(model[model[FAMILY]])
    train = {**Auto.train, **own.pop("train"), **sections.get("train", {})}
    if model[FAMILY] == Boosting.tag:
        own["rounds"] = round(PACE / train["lr"])
    return {**sections, "model": {"type": model[FAMILY], **own}, "train": train}


def effective(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial without those of the models that it does not take."""
    return {key: value for key, value in values.items() if reads(values, key)}


def family(values: Mapping[str, Any]) -> str:
    """The model that a trial takes, by its values; empty without `auto`."""
    return str(values.get(f"model.{FAMILY}", ""))


def reads(values: Mapping[str, Any], key: str) -> bool:
    """Whether a trial reads a key of the space; `values` has the model that it takes."""
    taken = family(values)
    others = (f"model.{name}." for name in SPACES if name != taken)
    return not taken or not key.startswith(tuple(others))


def starts(searched: Mapping[str, space.Distribution]) -> list[dict[str, object]]:
    """Values of the first trials: each model at its defaults; none without `auto`."""
    drawn = searched.get(f"model.{FAMILY}")
    if drawn is None:
        return []
    usual = {key: one.default() for key, one in searched.items()}
    return [usual | {f"model.{FAMILY}": name} for name in drawn.grid()]


def _of(searched: space.Tree, families: Sequence[str]) -> space.Tree:
    spaces = {name: _parsed(SPACES[name]) for name in families}
    drawn = {FAMILY: space.parse("choice", list(families)), **spaces}
    return {**searched, "model": {"type": Auto.tag, **drawn}}


def _is_auto(model: Any) -> bool:
    return isinstance(model, Mapping) and model.get("type") == Auto.tag


def _parsed(node: Any) -> Any:
    kind = space.kind_of(node)
    if kind is not None:
        return space.parse(kind, node[kind])
    if isinstance(node, dict):
        return {name: _parsed(value) for name, value in node.items()}
    return node
