"""Column kinds are objects: each is registered, and nothing else knows their names."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from eagleray import errors
from eagleray.learn import columns, schema

ROOT = Path(__file__).parents[2]
PACKAGES = ("eagleray", "ray_jobs", "serving", "k8s")
OTHER_MEANINGS = {
    "numeric": {
        "eagleray/learn/features/matrix.py",
        "eagleray/learn/features/transforms.py",
        "eagleray/learn/models/layers.py",
        "eagleray/learn/models/numbers.py",
        "eagleray/learn/models/recommender.py",
        "eagleray/learn/models/tabm.py",
    },  # a model's input
    "boolean": {  # of JSON Schema
        "eagleray/spec/reference.py",
        "eagleray/spec/terms.py",
        "serving/openapi_parts.py",
    },
}
"""Files in which a kind's name is a word for something else. `text` and `image` are everywhere:
they are types of models, inputs and parts of pods, so only comparisons of types are looked for."""


def sources() -> Iterator[tuple[str, ast.AST]]:
    kinds = ROOT / "eagleray" / "learn" / "columns"
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if kinds not in path.parents:
                yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def test_no_other_file_spells_a_kind() -> None:
    words = set(columns.REGISTRY) - {"text", "image"}
    spelled = [
        (name, node.value)
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in words
        if name not in OTHER_MEANINGS.get(str(node.value), ())
    ]
    assert spelled == []


def test_no_other_file_branches_on_a_columns_type() -> None:
    compared = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Subscript | ast.MatchValue)
        if "column.type" in ast.unparse(node)
    ]
    assert compared == []


def test_kinds_are_tried_in_their_order_and_those_that_take_any_text_last() -> None:
    tried = [kind.name for kind in columns.candidates()]
    assert tried == ["numeric", "boolean", "image", "datetime", "text", "categorical"]


def test_a_column_of_an_unknown_kind_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(errors.NotFoundError, match=r"column kind: .* 'numerical'; did you mean"):
        schema.Column(name="x", type="numerical")
