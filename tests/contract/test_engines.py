"""Every engine: rows in, outputs out, the same after it was stored, in chunks and from threads."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from eagleray import engines, errors
from eagleray.engines import Engine, Imported
from eagleray.engines.ensemble import Ensemble, Member
from eagleray.engines.recommender import Recommender
from eagleray.engines.torch import Torch
from eagleray.learn import features, models
from eagleray.learn.models.recommender import Recommender as Module
from tests import elsewhere

SHAPE = features.Shape(numeric=30, categories=0, table=0, tokens=0, image=None)
COLUMNS = elsewhere.cancer().drop(columns="diagnosis")


class Case(NamedTuple):
    """An engine, inputs that it takes, and the number of its outputs."""

    engine: Engine
    inputs: features.Inputs
    outputs: int
    shape: features.Shape = SHAPE
    classes: int = 2


def _torch() -> Case:
    torch.manual_seed(0)
    options = models.parse({"type": "mlp", "hidden": [16]})
    engine = Torch(options, models.build(options, SHAPE, 2))
    return Case(engine, {"numeric": COLUMNS.to_numpy(np.float32)}, 2)


def _ensemble() -> Case:
    """Two networks, of which one counts twice and has inputs of its own."""
    one, other = _torch(), _torch()
    members = [Member(one.engine, 1, SHAPE), Member(other.engine, 2, SHAPE, encoding=1)]
    inputs = {"numeric": one.inputs["numeric"], "1/numeric": other.inputs["numeric"] / 2}
    return Case(Ensemble(members, "probabilities"), inputs, 2)


def _imported(name: str, content: bytes, outputs: int, dtype: str) -> Case:
    engine = read(name, content)
    return Case(engine, {engine.inputs[0].name: COLUMNS.to_numpy(dtype)}, outputs)


def read(name: str, content: bytes) -> Imported:
    kind: Any = engines.member(name)
    engine: Imported = kind.read(content)
    return engine


def _recommender() -> Case:
    torch.manual_seed(0)
    shape, items = features.Shape(numeric=30, categories=1, table=12, users=12), 40
    options = models.parse({"type": "recommender", "factors": 4})
    module = models.build(options, shape, items)
    assert isinstance(module, Module)
    user_B1 = np.arange(len(COLUMNS), dtype=np.int32)[:, None] % 12
    scaled = (COLUMNS - COLUMNS.mean()) / COLUMNS.std()
    inputs = {"categories": user_B1, "numeric": scaled.to_numpy(np.float32)}
    engine = Recommender(options, module)
    engine.remember(inputs, np.arange(len(COLUMNS)) % 7)
    return Case(engine, inputs, 2 * items + 1, shape, items)


FILES: dict[str, Callable[[], bytes]] = {
    "onnx": elsewhere.classifier_file,
    "lightgbm": elsewhere.booster_text,
    "export": elsewhere.network_file,
}
CASES: dict[str, Callable[[], Case]] = {
    "torch": _torch,
    "onnx": lambda: _imported("onnx", FILES["onnx"](), 2, "float32"),
    "lightgbm": lambda: _imported("lightgbm", FILES["lightgbm"](), 1, "float64"),
    "export": lambda: _imported("export", FILES["export"](), 2, "float32"),
    "recommender": _recommender,
    "ensemble": _ensemble,
}
OWN = {engines.TORCH, engines.ENSEMBLE, "recommender"}
"""Engines of models that EagleRay alone makes."""


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def test_every_engine_is_held_to_the_contract() -> None:
    assert set(CASES) == set(engines.REGISTRY)
    assert set(FILES) == set(CASES) - OWN


def test_each_row_has_outputs_that_are_floating_point_numbers(case: Case) -> None:
    outputs = case.engine.run(case.inputs)
    assert outputs.shape == (len(COLUMNS), case.outputs)
    assert outputs.dtype.kind == "f"


def test_a_row_has_the_same_outputs_alone_and_in_chunks(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engines.run(case.engine, case.inputs)
    for rows in (1, 100):
        monkeypatch.setattr(case.engine, "chunk", rows)
        some = {name: array[:250] for name, array in case.inputs.items()}
        np.testing.assert_allclose(engines.run(case.engine, some), whole[:250], 1e-5, 1e-6)


def test_what_is_stored_is_json_and_files_that_give_the_same_outputs(case: Case) -> None:
    engine = case.engine
    described = json.loads(json.dumps(engine.describe())) | {"engine": engine.name}
    loaded = engines.load(described, engine.files(), case.shape, case.classes)
    assert type(loaded) is type(engine)
    np.testing.assert_array_equal(loaded.run(case.inputs), engine.run(case.inputs))


def test_threads_that_share_an_engine_have_the_outputs_of_one(case: Case) -> None:
    parts = [{name: array[at::4] for name, array in case.inputs.items()} for at in range(4)]
    alone = [case.engine.run(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for one, other in zip(pool.map(case.engine.run, parts), alone, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_no_file_that_is_cut_is_read(name: str) -> None:
    content = FILES[name]()
    for cut in (0, 10, len(content) // 3, len(content) // 2, int(len(content) * 0.9)):
        with pytest.raises(errors.UserError):
            read(name, content[:cut])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"no model", b"\x80\x04K\x01.", b"PK\x03\x04", b"\xff" * 99])
def test_what_is_no_model_is_refused_and_nothing_of_it_is_run(name: str, content: bytes) -> None:
    with pytest.raises(errors.UserError, match="is needed"):
        read(name, content)


@pytest.mark.parametrize("name", FILES)
def test_an_output_that_a_model_lacks_is_refused(name: str) -> None:
    kind: Any = engines.member(name)
    with pytest.raises(errors.UserError, match=r"output: .* but got 'odds'"):
        kind.read(FILES[name](), output="odds")


def test_an_engine_of_a_newer_release_is_refused_by_name() -> None:
    with pytest.raises(errors.NotFoundError, match=r"engine: must be one of torch, .* got 'xgb'"):
        engines.load({"engine": "xgb"}, {}, SHAPE, 2)
