"""Tasks are objects: what depends on one is in its own file; a file's loss or metric may choose."""

import re
from pathlib import Path

import numpy as np
import pytest

from eagleray import bundle, errors
from eagleray.learn import schema, tasks
from tests import bundles

ROOT = Path(__file__).parents[2]
BRANCH = re.compile(
    r"""["'](regression|binary|multiclass|ranking)["']|\btask\s*[=!]=\s*["']|\boutputs\s*[=!]=\s*\d"""
)


def test_no_module_but_its_own_depends_on_a_task() -> None:
    own = ROOT / "eagleray" / "learn" / "tasks"
    files = [
        file
        for package in ("eagleray", "ray_jobs", "serving", "k8s")
        for file in (ROOT / package).rglob("*.py")
        if own not in file.parents and file != ROOT / "serving" / "openapi_parts.py"
    ]  # where `binary` is a format of OpenAPI
    assert [str(file) for file in files if BRANCH.search(file.read_text())] == []
    assert BRANCH.search((own / "binary.py").read_text())


class Floors(tasks.Regression):
    """Whole numbers, likewise."""

    name = "floors"


def test_of_tasks_that_fit_the_first_is_taken_unless_the_file_means_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = {**tasks.REGISTRY._members, Floors.name: Floors}
    monkeypatch.setattr(tasks.REGISTRY, "_members", members)
    numbers, classes = np.arange(100.0), np.arange(100.0) % 2
    column = schema.Column(name="y", type="numeric", integer=True)
    quantity = tasks.TargetColumn(column, numbers, numbers)
    assert tasks.infer(quantity, preferred=tasks.REGISTRY).name == "regression"
    assert tasks.infer(quantity, preferred={"floors", "binary"}).name == "floors"
    assert tasks.infer(tasks.TargetColumn(column, classes, classes), {"floors"}).name == "binary"


@pytest.mark.parametrize(
    ("target", "outputs"),
    [
        (schema.Target(name="y", task="binary", classes=("a", "b")), np.eye(2)[[0, 1, 1]]),
        (schema.Target(name="y", task="regression"), np.array([1.0, 2.0, 2.5])),
        (
            schema.Target(name="y", task="quantiles", quantiles=(0.1, 0.5)),
            np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 2.5]]),
        ),
    ],
)
def test_predictions_are_compared_by_the_column_kind_of_the_target(
    target: schema.Target, outputs: np.ndarray
) -> None:
    task = tasks.of(target)
    predicted = task.table(np.array([0, 1, 1]), outputs)["prediction"]
    reference = task.column.kind.statistics(predicted)
    assert task.column.kind.shares(reference, predicted) == reference["shares"]
    assert sum(task.column.kind.shares(reference, predicted[:1])) == 1


@pytest.mark.parametrize(
    ("known", "unknown", "law"),
    [
        (b'"task":"binary"', b'"task":"ordering"', "task: must be one of binary, multiclass, regr"),
        (
            b'"type":"mlp"',
            b'"type":"wide"',
            "model.type: must be one of mlp, tabm, boosting, auto, text, image, rec",
        ),
    ],
)
def test_a_bundle_of_a_package_that_is_absent_is_refused_with_what_is_known(
    known: bytes, unknown: bytes, law: str
) -> None:
    files = bundles.files()
    files["bundle.json"] = files["bundle.json"].replace(known, unknown)
    with pytest.raises(errors.EagleRayError, match=law):
        bundle.unpack(files)
