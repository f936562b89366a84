"""LightGBM's text, held to what it says of itself before LightGBM reads it.

    key=value lines, of which `tree_sizes` has the bytes of each tree
    Tree=0, its lines …, Tree=1, …      in just these sizes
    end of trees, then importances, parameters and pandas' categories

https://github.com/microsoft/LightGBM/blob/v4.7.0/src/boosting/gbdt_model_text.cpp
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from eagleray import errors

_END, _BEGUN, _ENDED = b"end of trees", b"\nparameters:", b"\nend of parameters"
_SPLITS = frozenset(
    {"split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child"}
    | {"internal_value", "internal_weight", "internal_count"}
)
_LEAVES = frozenset({"leaf_value", "leaf_weight", "leaf_count"})
_FRACTIONS = frozenset(
    {"split_gain", "threshold", "internal_value", "internal_weight", "leaf_value", "leaf_weight"}
)
_NEEDED = frozenset({"num_leaves", "num_cat", "leaf_value", "shrinkage"}) | _SPLITS
_KEYS = _NEEDED | _LEAVES | {"cat_boundaries", "cat_threshold", "is_linear"}
_MOST_LEAVES = 1 << 24
_NOTHING = b"".join(
    line + b"\n"
    for line in (
        b"Tree=0", b"num_leaves=1", b"num_cat=0", b"split_feature=", b"split_gain=", b"threshold=",
        b"decision_type=", b"left_child=", b"right_child=", b"leaf_value=0", b"leaf_weight=",
        b"leaf_count=", b"internal_value=", b"internal_weight=", b"internal_count=",
        b"is_linear=0", b"shrinkage=1", b"", b"",
    )
)  # fmt: skip
"""A tree of one leaf, whose value is 0."""
_ENDLESS = ("inf", "-inf")
"""Thresholds that part a missing value from all others."""


def check(content: bytes) -> dict[str, str]:
    """The text's first lines by key; UserError where lengths, columns or children do not fit."""
    head, _, rest = content.partition(b"\n\n")
    described = _lines(head)
    if not head.startswith(b"tree\n") or not {"tree_sizes", "max_feature_idx"} <= described.keys():
        raise errors.UserError("a text of `Booster.save_model` is needed, but got none")
    if not described.get("objective"):
        raise errors.UserError("objective: must be one of LightGBM's, but the text names none")
    columns = _whole(described["max_feature_idx"]) + 1
    position = len(head) + 2 + len(rest) - len(rest.lstrip(b"\n"))
    for number, size in enumerate(map(_whole, described["tree_sizes"].split())):
        tree = content[position : position + size]
        if not tree.startswith(b"Tree=%d\n" % number) or len(tree) < size:
            raise errors.UserError(f"tree {number}: must have {size} bytes, but the text is cut")
        _check_tree(f"tree {number}", tree, columns)
        position += size
    end = content[position:]
    if not end.startswith(_END) or (_BEGUN in end and _ENDED not in end):
        raise errors.UserError("the text must go on to 'end of parameters', but is cut")
    _check_categories(content)
    return described


def joined(texts: Sequence[bytes]) -> bytes:
    """The text of one booster with the trees of several of the same columns and objective."""
    parts = [text.partition(b"\n\n") for text in texts]
    grown = [one for head, _, rest in parts for one in _trees(head, rest)]
    return _written(parts[0][0].split(b"\n"), grown, parts[-1][2])


def side_by_side(texts: Sequence[bytes]) -> bytes:
    """The text of one booster whose outputs are those of several boosters of one output each.

    Each of its rounds has a tree of every booster; one that has grown fewer adds nothing there.
    """
    parts = [text.partition(b"\n\n") for text in texts]
    grown = [_trees(head, rest) for head, _, rest in parts]
    each = itertools.zip_longest(*grown, fillvalue=_NOTHING)
    ordered = [tree for trees in each for tree in trees]
    counts = {b"num_class": len(texts), b"num_tree_per_iteration": len(texts)}
    head = [
        b"%s=%d" % (key, counts[key]) if (key := line.partition(b"=")[0]) in counts else line
        for line in parts[0][0].split(b"\n")
    ]
    return _written(head, ordered, parts[-1][2])


def _written(head: Sequence[bytes], grown: Sequence[bytes], last: bytes) -> bytes:
    """A text of numbered trees; `last` is a booster's text from its first tree on."""
    named = [b"Tree=%d\n" % number + one.partition(b"\n")[2] for number, one in enumerate(grown)]
    sizes = b"tree_sizes=" + b" ".join(b"%d" % len(one) for one in named)
    lines = [sizes if line.startswith(b"tree_sizes=") else line for line in head]
    end = _END + b"\n" + last[last.index(_BEGUN) :]  # without importances, which are one booster's
    return b"\n".join(lines) + b"\n\n" + b"".join(named) + end


def _trees(head: bytes, rest: bytes) -> list[bytes]:
    """The text of each tree."""
    sizes = [_whole(one) for one in _lines(head)["tree_sizes"].split()]
    ends = [0, *itertools.accumulate(sizes)]
    return [rest[start:end] for start, end in itertools.pairwise(ends)]


def _check_categories(content: bytes) -> None:
    *_, last = content.rsplit(b"pandas_categorical:", 1)
    if last.strip() not in (b"[]", b"null") and b"pandas_categorical:" in content:
        raise errors.UserError(
            "columns must be numbers, but the booster was trained on categories of pandas, and its "
            "text does not say of which columns; train it on their codes"
        )


def _check_tree(name: str, text: bytes, columns: int) -> None:
    """Raise UserError for a line or an array of another form, or a number that leads nowhere."""
    lines = [line for line in text.decode("utf-8", "replace").split("\n")[1:] if line]
    tree = dict(line.partition("=")[::2] for line in lines)
    if len(tree) < len(lines) or not _KEYS.issuperset(tree) or not tree.keys() >= _NEEDED:
        law = f"must have one line each of {', '.join(sorted(_NEEDED))}"
        raise errors.UserError(f"{name}: {law}, but has others")
    leaves = _whole(tree["num_leaves"])
    if not 1 <= leaves <= _MOST_LEAVES or tree.get("is_linear", "0") != "0":
        raise errors.UserError(f"{name}: must have constant leaves, but has linear ones or none")
    lengths = dict.fromkeys(_SPLITS, leaves - 1) | dict.fromkeys(_LEAVES, leaves)
    for key, length in lengths.items():
        got = tree.get(key, "").split(" ") if tree.get(key) else []
        if len(got) != length and (got or leaves > 1 or key == "leaf_value"):
            raise errors.UserError(f"{name}: {key} must have {length} values, but has {len(got)}")
        for one in got:
            if key != "threshold" or one not in _ENDLESS:
                (_number if key in _FRACTIONS else _whole)(one)
    if _number(tree["shrinkage"]) <= 0:
        raise errors.UserError(f"{name}: shrinkage must be above 0, but got {tree['shrinkage']}")
    if leaves > 1:
        _check_splits(name, tree, leaves, columns)


def _check_splits(name: str, tree: dict[str, str], leaves: int, columns: int) -> None:
    if not all(0 <= _whole(one) < columns for one in tree["split_feature"].split()):
        raise errors.UserError(f"{name}: split_feature must name one of {columns} columns")
    children = zip(tree["left_child"].split(), tree["right_child"].split(), strict=True)
    for parent, pair in enumerate(children):
        for child in map(_whole, pair):  # a leaf is ~child; a node stands after its parent
            if not (parent < child < leaves - 1 or 0 <= ~child < leaves):
                raise errors.UserError(f"{name}: a child must be a later node or a leaf")
    _check_category_splits(name, tree)


def _check_category_splits(name: str, tree: dict[str, str]) -> None:
    count = _whole(tree.get("num_cat", "0"))
    bounds = [_whole(one) for one in tree.get("cat_boundaries", "0").split()]
    rising = all(low < high for low, high in itertools.pairwise(bounds))
    words = len(tree.get("cat_threshold", "").split())
    if len(bounds) != count + 1 or bounds[0] != 0 or not rising or bounds[-1] != words:
        raise errors.UserError(f"{name}: cat_boundaries must divide cat_threshold, but do not")
    pairs = zip(tree["decision_type"].split(), tree["threshold"].split(), strict=True)
    if not all(0 <= _number(at) < count for kind, at in pairs if _whole(kind) & 1):
        raise errors.UserError(f"{name}: threshold must name one of {count} sets of categories")


def _lines(text: bytes) -> dict[str, str]:
    lines = text.decode("utf-8", "replace").splitlines()
    return {key: value for key, sign, value in (line.partition("=") for line in lines) if sign}


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as cause:
        raise errors.UserError(f"a whole number is needed in the text, but got {text!r}") from cause


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise errors.UserError(f"a finite number is needed in the text, but got {text!r}")
    return value
