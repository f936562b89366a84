"""LightGBM's text is held to its own lengths: what its reader trusts would end the process."""

import re
from collections.abc import Callable

import lightgbm
import numpy as np
import pytest

from eagleray import errors
from eagleray.engines import trees
from tests import elsewhere

TEXT = elsewhere.booster_text().decode()


def changed(pattern: str, change: Callable[[str], str]) -> bytes:
    """The text with the first match in tree 0 changed, and the tree's size put right."""
    start, end = TEXT.index("Tree=0"), TEXT.index("Tree=1")
    tree = TEXT[start:end]
    other = re.sub(pattern, lambda found: change(found[0]), tree, count=1, flags=re.MULTILINE)
    assert other != tree
    (sizes,) = re.findall(r"^tree_sizes=(\d+)", TEXT, re.MULTILINE)
    assert int(sizes) == len(tree)
    head = TEXT[:start].replace(f"tree_sizes={sizes} ", f"tree_sizes={len(other)} ")
    return f"{head}{other}{TEXT[end:]}".encode()


@pytest.mark.parametrize(
    ("pattern", "replacement", "law"),
    [
        (r"^split_feature=\d+", "split_feature=30", "must name one of 30 columns"),
        (r"^split_feature=\d+", "split_feature=-1", "must name one of 30 columns"),
        (r"^left_child=\S+", "left_child=0", "a later node or a leaf"),
        (r"^right_child=\S+", "right_child=-99", "a later node or a leaf"),
        (r"^threshold=\S+ ", "threshold=", "threshold must have 7 values, but has 6"),
        (r"^leaf_value=\S+", "leaf_value=1 2", "leaf_value must have 8 values, but has 9"),
        (r"^leaf_weight=\S+", "leaf_weight=x", "a finite number is needed .* 'x'"),
        (r"^threshold=\S+", "threshold=nan", "a finite number is needed"),
        (r"^num_leaves=\d+", "num_leaves=99999999", "constant leaves"),
        (r"^is_linear=0", "is_linear=1", "constant leaves, but has linear ones"),
        (r"^num_cat=0\n", "", "must have one line each of"),
        (r"^num_cat=0", "num_cat=2", "cat_boundaries must divide cat_threshold"),
        (r"^decision_type=\d+", "decision_type=1", "must name one of 0 sets of categories"),
        (r"^shrinkage=\S+", "shrinkage=0", "shrinkage must be above 0"),
        (r"^num_leaves", "num_leafs", "must have one line each of"),
        (r"^shrinkage", "n\nshrinkage", "must have one line each of"),
    ],
)
def test_a_tree_that_does_not_fit_itself_is_refused(
    pattern: str, replacement: str, law: str
) -> None:
    with pytest.raises(errors.UserError, match=law):
        trees.check(changed(pattern, lambda _: replacement))


def test_no_prefix_of_a_text_is_taken_but_what_lacks_only_its_last_lines() -> None:
    last = TEXT.index("end of parameters")
    for cut in range(0, last, 211):
        if TEXT[:cut].endswith("parameters:\n") or cut < TEXT.index("end of trees"):
            with pytest.raises(errors.UserError):
                trees.check(TEXT[:cut].encode())


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "binary"},
        {"objective": "regression", "boosting": "dart"},
        {"objective": "multiclass", "num_class": 3},
        {"objective": "quantile", "alpha": 0.9},
    ],
)
def test_what_lightgbm_writes_is_taken_with_categories_too(options: dict[str, object]) -> None:
    random = np.random.default_rng(0)
    x_BF = np.column_stack([random.normal(size=300), random.integers(0, 40, 300)])
    data = lightgbm.Dataset(x_BF, x_BF[:, 1] % 2, categorical_feature=[1])
    made = lightgbm.train({"verbosity": -1, "num_threads": 1, **options}, data, 3)
    assert trees.check(made.model_to_string().encode())["max_feature_idx"] == "1"


def test_a_booster_that_parts_gaps_from_all_values_is_read() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 2))
    rows[::3, 0] = np.nan
    data = lightgbm.Dataset(rows, np.isnan(rows[:, 0]).astype(float))
    made = lightgbm.train({"objective": "regression", "verbosity": -1}, data, 3)
    text = made.model_to_string()
    assert "threshold=inf" in text
    trees.check(text.encode())
    loaded = lightgbm.Booster(model_str=text)
    np.testing.assert_array_equal(loaded.predict(rows), made.predict(rows))
    assert np.ptp(np.asarray(loaded.predict(rows))) > 0.1
