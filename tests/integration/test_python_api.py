"""The Python API: docs/python.md from top to bottom, and what a notebook shows."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import eagleray
from eagleray import errors, storage
from eagleray.state.models import Registry
from serving import environment
from tests import bundles

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "storage").mkdir()
    file = "".join(text for kind, text in blocks if kind == "yaml")
    storage_line = f"storage: {(tmp_path / 'storage').as_uri()}\n"
    (tmp_path / "tumours.yaml").write_text(file + storage_line)
    (port,) = environment.free_ports(1)
    code = "".join(text for kind, text in blocks if kind == "python")
    after = "import os\nprint('mode of authentication:', os.environ.get('RAY_AUTH_MODE'))\n"
    (tmp_path / "page.py").write_text(code.replace("port=8000", f"port={port}") + after)
    run = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "['tumours']" in run.stdout
    assert "tumours: champion points to version 2, before: 1" in run.stdout
    assert "tumours: champion points to version 1, before: 2" in run.stdout
    assert f"1 http://127.0.0.1:{port} curl -s" in run.stdout
    assert run.stdout.endswith("mode of authentication: None\n")


@pytest.fixture
def models(tmp_path: Path) -> eagleray.Models:
    uri = tmp_path.as_uri()
    registry = Registry(storage.open(uri))
    manifest = {"metric": "accuracy", "metrics": {"test": {"accuracy": 0.5}}, "warnings": ["<odd>"]}
    registry.promote("left", registry.register("left", bundles.files(), manifest).number)
    return eagleray.models(uri)


def test_a_table_is_predicted_row_by_row_and_faulty_rows_say_why(models: eagleray.Models) -> None:
    frame = pd.DataFrame(bundles.rows(4)).astype({"age": object})
    frame.loc[2, "age"] = "old"
    answers = models["left"].predict(frame, repeated=["age"])
    assert list(answers)[:3] == ["age", "label", "probability"]
    assert answers["error"].isna().tolist() == [True, True, False, True]
    assert answers["error"][2] == "row 3: age: a number is needed, but got 'old'"
    assert answers["probability of yes"].notna().sum() == 3


def test_names_that_are_not_there_are_refused_with_the_nearest(models: eagleray.Models) -> None:
    with pytest.raises(errors.NotFoundError, match="did you mean 'left'"):
        models["lefd"]
    with pytest.raises(errors.NotFoundError, match="champion"):
        models["left"].version("champoin")
    with pytest.raises(errors.DataError, match="there is no 'age'"):
        models["left"].predict(pd.DataFrame(bundles.rows(2)).drop(columns="age"))
    with pytest.raises(AttributeError):
        _ = eagleray.lod


def test_a_notebook_shows_a_sentence_and_tables_with_all_text_escaped(
    models: eagleray.Models, tmp_path: Path
) -> None:
    shown = models["left"]._repr_html_()
    assert "left: champion=1" in shown
    assert "&lt;odd&gt;" in shown
    assert "<odd>" not in shown
    assert "<td" in models._repr_html_()
    file = tmp_path / "wine.yaml"
    file.write_text("name: wine\ndata: {source: 'dataset:wine', target: target}\n")
    check = eagleray.load(file, {"train.lr": 0.01, "train.epochs": 2}).check()
    assert "alcohol" in check._repr_html_()
    assert check.facts["experiment"]["train"]["lr"] == 0.01
    with pytest.raises(errors.SpecError, match=r"train\.epoch"):
        eagleray.load(file, {"train.epoch": 2})


def test_every_public_name_is_found_when_it_is_used_and_nothing_heavy_before() -> None:
    assert [name for name in eagleray.__all__ if not callable(getattr(eagleray, name))] == []
    code = "import eagleray, sys; print(sum(name in sys.modules for name in ('numpy', 'ray')))"
    run = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert run.stdout == "0\n"
