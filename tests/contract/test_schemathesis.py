"""Schemathesis finds nothing: requests as the served OpenAPI describes them are answered, others
are refused, and every answer is of a described status, type and form."""

import base64
import contextlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from PIL import Image
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from eagleray import apikeys, bundle
from eagleray.engines.torch import Torch
from eagleray.learn import features, models, schema
from serving import batching, guard, keys, metrics, openapi, predictor, protocol, web
from tests import bundles
from tests.contract import bodies

ROWS = 6
"""The most rows of a request in these tests: 10,000 take minutes to make, many long to explain."""
REFUSALS = [400, 401, 405, 413, 415, 422]
UNSAYABLE = ("a picture of the training pictures' shape is needed",)
"""Laws that OpenAPI cannot say: what a picture is."""


@dataclass(frozen=True)
class Case:
    """A model, and what of its endpoint differs from the default."""

    columns: tuple[schema.Column, ...] = bundles.COLUMNS
    target: schema.Target | None = None
    raw: bundles.Raw | None = None
    extra_fields: schema.ExtraFields = "refuse"
    paths: tuple[str, ...] = ("/predict", "/v2/models/left/infer")  # all if it is empty
    keys: bool = False
    accept: str = "*/*"


def changed(**updates: dict[str, Any]) -> tuple[schema.Column, ...]:
    """The usual columns, some of which are changed."""
    return tuple(one.model_copy(update=updates.get(one.name, {})) for one in bundles.COLUMNS)


def png(mode: str) -> str:
    sink = io.BytesIO()
    Image.new(mode, (2, 2), 7).save(sink, "PNG")
    return base64.b64encode(sink.getvalue()).decode()


NEEDED = tuple(one.model_copy(update={"nullable": False}) for one in bundles.COLUMNS)
SCALARS = {"categories": ("1", "2.5", "true"), "nullable": True}
PICTURES = (
    schema.Column(name="grey", type="image", image_shape=(1, 2, 2)),
    schema.Column(name="colour", type="image", image_shape=(3, 2, 2), nullable=True),
)
PNGS = [png(mode) for mode in ("L", "RGB")]
SHOWN: bundles.Raw = {
    "grey": [[[1, 2], [3, 4]]] * 4,
    "colour": [[[[1, 2, 3]] * 2] * 2] * 3 + [None],
}
CASES = {
    "columns that may be missing": Case(),
    "columns that are needed, a number": Case(
        NEEDED, schema.Target(name="left", task="regression")
    ),
    "categories that are numbers, whole records, several classes": Case(
        changed(city=SCALARS, age={"nullable": True, "missing": ("n. a.", "-9")}),
        schema.Target(name="left", task="multiclass", classes=("a", "b", "c")),
        extra_fields="ignore",
    ),
    "pictures": Case(PICTURES, raw=SHOWN),
    "answers as tables": Case(paths=("/predict",), accept=openapi.CSV),
    "keys": Case(columns=bundles.COLUMNS[:1], paths=(), keys=True),
}


QUICK = ("categories that are numbers, whole records, several classes", "keys")


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in CASES],
)
def test_schemathesis_finds_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")
    monkeypatch.setattr(protocol, "MOST_ROWS", ROWS)
    with application(CASES[name], tmp_path) as (served, key):
        cases, failures = examined(served, CASES[name], key)
    assert failures == []
    assert cases > 40


@contextlib.contextmanager
def application(case: Case, folder: Path) -> Iterator[tuple[web.Application, str]]:
    """The application that serves the model, and a key if it asks for one."""
    observer = metrics.Metrics(folder / "metrics", "left")
    made, key = web.Application("left", observer), ""
    loaded = model(case)
    with ThreadPoolExecutor(1) as thread:
        made.predictor = predictor.Predictor(
            loaded, batching.Limits(), thread, observer, extra_fields=case.extra_fields
        )
        if case.keys:
            key, known = apikeys.new("tests", frozenset({"predict", "admin"}))
            (folder / "keys").write_text(known.line())
            made.guard = guard.Guard(keys.Keys(folder / "keys"))
        yield made, key


def model(case: Case) -> bundle.Bundle:
    raw = case.raw or bundles.rows(4, seed=7)
    raw = {one.name: raw[one.name] for one in case.columns}
    if case.raw is None:
        loaded = bundles.make(columns=case.columns, target=case.target)
    else:
        target = schema.Target(name="left", task="binary", classes=("no", "yes"))
        known = schema.Schema(columns=case.columns, target=target)
        transforms = features.Transforms.fit(known, {}, schema.parse(known, raw))
        options = models.parse({"type": "mlp", "hidden": [4]})
        engine_ = Torch(options, models.build(options, transforms.shape, 2))
        scale = {"mean": 0.0, "deviation": 1.0}
        loaded = bundle.Bundle(schema=known, transforms=transforms, engine=engine_, scale=scale)
    loaded.name, loaded.number = "left", 3
    loaded.golden = bundle.Golden(raw, loaded.predict(raw).outputs.tolist())
    return loaded


def examined(
    served: web.Application, case: Case, key: str
) -> tuple[int, list[tuple[str, str, str]]]:
    """The number of requests, and what Schemathesis found: check, reason, request."""
    off = {"enabled": False}
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "request-timeout": 120,
            "generation": {"max-examples": 10, "deterministic": True, "database": "none"},
            "checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}},
            "phases": {"examples": off, "stateful": off},
            "auth": {"openapi": {"key": {"api_key": key}}} if key else {},
        }
    )
    headers = {"x-api-key": key, "accept": case.accept}
    described = schemathesis.openapi.from_asgi(
        "/openapi.json", served, config=config, headers=headers
    )
    assert served.predictor is not None
    golden = served.predictor.bundle.golden
    assert golden is not None
    first = {one: one.kind.parse(one, golden.rows[one.name][:1]) for one in case.columns}
    row = {one.name: one.kind.to_json(array)[0] for one, array in first.items()}
    if case.paths:
        described = described.include(path=list(case.paths))
    cases, failures = 0, []
    with bodies.valid(case.columns, row, pictures=PNGS, rows=ROWS):
        for event in engine.from_schema(described).execute():
            assert not isinstance(event, events.NonFatalError | events.FatalError), event
            if isinstance(event, events.ScenarioFinished):
                cases += len(event.recorder.cases)
                failures += found(event)
    return cases, failures


def found(event: events.ScenarioFinished) -> Iterator[tuple[str, str, str]]:
    for case, checks in event.recorder.checks.items():
        response = event.recorder.find_response(case_id=case)
        answered = response.content.decode(errors="replace") if response is not None else ""
        for check in checks:
            if check.failure_info is not None and not any(law in answered for law in UNSAYABLE):
                request = check.failure_info.code_sample[:2000]
                yield check.name, f"{check.failure_info.failure.message}: {answered[:500]}", request
