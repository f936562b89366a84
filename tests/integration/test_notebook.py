"""The example notebook, cell by cell, as a notebook shows it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNNER = """
import ast, json, sys

shown = []

def show(value):
    if value is not None:
        drawn = getattr(value, "_repr_html_", None)
        shown[-1].append(drawn() if drawn else repr(value))

sys.displayhook, names = show, {"__name__": "__main__"}
for cell in json.load(open("wine.ipynb"))["cells"]:
    if cell["cell_type"] == "code":
        shown.append([])
        for line in ast.parse("".join(cell["source"])).body:
            exec(compile(ast.Interactive([line]), "cell", "single"), names)
json.dump(shown, open("shown.json", "w"))
"""


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_notebook_runs_and_its_objects_draw_themselves(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    shutil.copy(EXAMPLES / "wine.ipynb", tmp_path)
    file = (EXAMPLES / "wine.yaml").read_text().replace("trials: 12", "trials: 3")
    (tmp_path / "wine.yaml").write_text(f"{file}storage: {(tmp_path / 'storage').as_uri()}\n")
    run = subprocess.run(
        [sys.executable, "-c", RUNNER], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr
    cells = json.loads((tmp_path / "shown.json").read_text())
    assert [len(one) for one in cells] == [1] * len(cells)
    loaded, check, audit, result, report, metrics, saved, answers = (one for (one,) in cells)
    assert "wine" in loaded
    assert "alcohol" in check
    assert "178 rows" in audit
    assert "<table" in result
    assert "<svg" in report
    assert "balanced_accuracy" in metrics
    assert saved == "PosixPath('wine.html')"
    assert "probability" in answers
    assert "<h2" in (tmp_path / "wine.html").read_text()


def test_the_notebook_is_kept_without_outputs() -> None:
    known = json.loads((EXAMPLES / "wine.ipynb").read_text())
    cells = [one for one in known["cells"] if one["cell_type"] == "code"]
    assert [(one["outputs"], one["execution_count"]) for one in cells] == [([], None)] * len(cells)
    assert len({one["id"] for one in known["cells"]}) == len(known["cells"])
