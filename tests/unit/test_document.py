"""YAML the 1.2 way, with the line of every key."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray.errors import SpecError
from eagleray.spec import document

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["C"]) | st.sampled_from("\n\t"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["C"]), max_size=8), inner)
    ),
    max_leaves=12,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "experiment.yaml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E+2", 100.0),
        (".5", 0.5),
        ("-7", -7),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("-.inf", -math.inf),
        ("true", True),
        ("~", None),
        ("", None),
    ],
)
def test_numbers_booleans_and_null_are_read_as_yaml_1_2_has_them(text: str, value: object) -> None:
    assert document.parse(f"[{text}]" if text else text, "x") == ([value] if text else value)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "1:30", "1_000", "2024-01-01", "0b1", "1e", "."]
)
def test_what_only_yaml_1_1_takes_for_more_stays_text(text: str) -> None:
    assert document.parse(text, "x") == text


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    assert document.parse(document.write(value), "x") == value


def test_every_key_and_item_has_its_line(file: Path) -> None:
    file.write_text("name: x\ntrain:\n  lr:\n    - 1\n    - 2\n  epochs: 3\n")
    page = document.read(file)
    assert page.line(("train", "lr")) == 3
    assert page.line(("train", "lr", 1)) == 5
    assert page.line(("train", "absent")) == 2


def test_keys_are_text_whatever_they_look_like(file: Path) -> None:
    file.write_text("1: a\ntrue: b\nnull: c\n1.0: d\n")
    assert document.read(file).value == {"1": "a", "true": "b", "null": "c", "1.0": "d"}


def test_a_key_that_stands_twice_is_named_with_both_lines(file: Path) -> None:
    file.write_text("train:\n  lr: 1\n  epochs: 3\n  lr: 2\n")
    page = document.read(file)
    assert page.problems == [(4, "train.lr: a key stands once, but line 2 holds it too")]
    assert page.value == {"train": {"lr": 1, "epochs": 3}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: !!python/object:os.system x", "a: tags are not allowed"),
        ("a: !mine [1]", "a: tags are not allowed"),
        ("a: !!int x", "a: must be a number, but got x"),
        ("? [1, 2]\n: 3", "a key must be text"),
    ],
)
def test_what_goes_beyond_plain_values_is_refused(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    assert document.read(file).problems[0][1].startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [1, 2", "2: must be YAML, but expected"),
        ("a: 1\n\tb: 2", "2: must be YAML, but found character"),
        ("a: &x [1]\nb: *x", "2: must be YAML, but aliases are not allowed"),
        ("a: 1\n---\nb: 2", "2: must be YAML, but found another document"),
        ("a: 1\nb: \x07", "2: must be YAML, but holds a control character"),
        ("[" * 5000, " must be YAML, but is nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_named_with_its_line(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        document.read(file)
    assert str(caught.value).startswith(f"{file}:{problem}")


def test_a_file_that_cannot_be_read_is_named(file: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        document.read(file)
    with pytest.raises(SpecError, match="Is a directory"):
        document.read(file.parent)
    file.write_bytes(b"name: \xff")
    with pytest.raises(SpecError, match="UTF-8, but byte 6 is not"):
        document.read(file)


def test_overrides_replace_values_and_make_sections(file: Path) -> None:
    file.write_text("name: x\ntrain: {lr: 1}\n")
    page = document.read(file, {"train.lr": "1e-2", "tune.budget.minutes": "3", "name": "y"})
    assert page.value == {"name": "y", "train": {"lr": 0.01}, "tune": {"budget": {"minutes": 3}}}
    assert page.line(("train", "lr")) == 0
    assert page.line(("train",)) == 2


def test_an_override_that_is_no_yaml_is_named(file: Path) -> None:
    file.write_text("name: x\n")
    with pytest.raises(SpecError, match=r"^--set train\.lr:1: must be YAML"):
        document.read(file, {"train.lr": "[1"})
