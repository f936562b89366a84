"""The faster of two ways to run a module: what is chosen, why, and that answers stay the same."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagleray import bundle, storage
from eagleray.engines import exported, placement
from eagleray.engines.torch import Torch
from eagleray.learn import features, models
from eagleray.state.models import Registry
from tests import bundles

SHAPE = features.Shape(numeric=5, categories=2, table=9, tokens=0, image=None)
PICTURES = features.Shape(numeric=0, categories=0, table=0, tokens=0, image=(1, 8, 8))


def batch(rows: int, shape: features.Shape = SHAPE) -> features.Inputs:
    random = np.random.default_rng(rows)
    if shape.image:
        return {"image": random.normal(size=(rows, *shape.image)).astype(np.float32)}
    return {
        "numeric": random.normal(size=(rows, 5)).astype(np.float32),
        "categories": random.integers(0, 9, (rows, 2)).astype(np.int32),
    }


def engine(shape: features.Shape = SHAPE, **options: Any) -> Torch:
    parsed = models.parse({"type": "mlp", **options})
    return Torch(parsed, models.build(parsed, shape, 3))


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds of a run by the class of the engine, in place of the clock's."""
    chosen = {"Torch": 2.0, "Graph": 1.0}

    def seconds(run: Any, inputs: features.Inputs) -> float:
        return chosen[type(run.__self__).__name__]

    monkeypatch.setattr(exported, "_seconds", seconds)
    return chosen


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (SHAPE, {}),
        (SHAPE, {"batch_norm": True, "activation": "silu", "hidden": [8]}),
        (PICTURES, {"type": "image"}),
        (SHAPE, {"type": "tabm", "members": 4, "width": 8}),
        (SHAPE, {"type": "tabm", "members": 4, "width": 8, "numbers": "periodic"}),
    ],
)
def test_a_graph_has_the_outputs_of_its_module_for_any_number_of_rows(
    shape: features.Shape, options: dict[str, Any], times: dict[str, float]
) -> None:
    whole = engine(shape, **options)
    batches = [batch(rows, shape) for rows in (1, 7, 300)]
    expected = [whole.run(inputs) for inputs in batches]
    exported.choose(whole, batch(32, shape), where="it")
    assert whole.graph is not None
    for inputs, outputs in zip(batches, expected, strict=True):
        np.testing.assert_allclose(whole.run(inputs), outputs, 1e-5, 1e-5)


def test_torch_stays_where_the_graph_does_not_pay(
    times: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    times["Graph"] = 1.9
    whole = engine()
    with caplog.at_level(logging.INFO, "ray.serve"):
        exported.choose(whole, batch(32), where="it")
    assert whole.graph is None
    assert "it: runs in torch: a row, then all golden rows in 1900000 µs against" in caplog.text


def test_torch_stays_for_a_column_of_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = bundles.make()  # with a column of text
    made.golden = bundles.golden(made)
    with caplog.at_level(logging.INFO, "ray.serve"):
        made.choose_engine("left version 1")
    assert isinstance(made.engine, Torch)
    assert made.engine.graph is None
    assert "left version 1: runs in torch: ONNX has no bags of tokens" in caplog.text


def test_torch_stays_where_the_exporter_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("no operator of this name")

    monkeypatch.setattr("torch.onnx.export", fail)
    whole = engine()
    with caplog.at_level(logging.INFO, "ray.serve"):
        exported.choose(whole, batch(32), where="it")
    assert whole.graph is None
    assert "since it has no graph of ONNX: no operator of this name" in caplog.text


def test_torch_stays_where_the_graph_gives_other_outputs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = exported.Graph.run
    monkeypatch.setattr(exported.Graph, "run", lambda self, inputs: run(self, inputs) + 1e-3)
    whole = engine()
    with caplog.at_level(logging.INFO, "ray.serve"):
        exported.choose(whole, batch(32), where="it")
    assert whole.graph is None
    assert "since ONNX Runtime is off by" in caplog.text


def test_a_replicas_version_runs_on_what_was_chosen_and_its_golden_rows_hold(
    tmp_path: Path, times: dict[str, float]
) -> None:
    registry = Registry(storage.open(tmp_path.as_uri()))
    columns = tuple(one for one in bundles.COLUMNS if one.name != "note")
    files = bundles.files(columns=columns)
    registry.register("left", files, {})
    before = placement.now()
    placement.use(placement.Placement(1, measured=True))
    try:
        loaded = bundle.load(registry, registry.version("left", 1))
    finally:
        placement.use(before)
    assert isinstance(loaded.engine, Torch)
    assert loaded.engine.graph is not None
    loaded.verify()
    raw = bundles.rows(50)
    np.testing.assert_allclose(
        loaded.predict(raw).outputs, bundle.unpack(files).predict(raw).outputs, atol=1e-6
    )
