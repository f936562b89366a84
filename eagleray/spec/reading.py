"""Reads a file's tree: its sections, its model, and the values that trials can get."""

from typing import Any

from eagleray.learn import models
from eagleray.spec import sections, space
from eagleray.spec.document import Key
from eagleray.spec.train import Train


def options(tree: space.Tree, key: str) -> list[Any]:
    """All values of `train.key` that trials can get; of a continuous distribution, its ends."""
    return ends(section(tree, "train").get(key, _default(tree, key)))


def values(tree: space.Tree, key: Key) -> list[Any]:
    """All values that the file sets at a key, as `options` has them; None where it sets none."""
    node: Any = tree
    for part in key:
        node = node.get(part) if isinstance(node, dict) else None
    return ends(node)


def ends(node: object) -> list[Any]:
    """The values of a distribution, of a continuous one its ends; else the value itself."""
    return [end for _, end in node.ends()] if isinstance(node, space.Distribution) else [node]


def _default(tree: space.Tree, key: str) -> object:
    """The default of `train.key` beside the file's model."""
    own = model(tree)
    return (own.train if own else {}).get(key, Train.model_fields[key].default)


def model(tree: space.Tree) -> type[models.Options] | None:
    """The section of the file's model; None for code of the user's, and unknown names."""
    named = model_type(tree)
    return models.REGISTRY[named].options if named in models.REGISTRY else None


def model_type(tree: space.Tree) -> str:
    """The type of the file's model, the default without a section `model`."""
    if given := section(tree, "model"):
        return str(given.get("type", sections.UNTYPED_MODEL))
    return models.default_type(recommends=section(tree, "data").get("recommend") is not None)


def section(tree: space.Tree, name: str) -> space.Tree:
    """A section of the file, or of a section; empty where there is none."""
    found = tree.get(name)
    return found if isinstance(found, dict) else {}
