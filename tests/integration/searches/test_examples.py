"""Every example, searched at a reduced size on real Ray, and asked over real HTTP.

The HTTP server here is uvicorn around the application of a replica; what HAProxy and Ray Serve put
before it is in `test_serving.py`.
"""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
import uvicorn
from rich import console

from eagleray import bundle, spec, storage
from eagleray.learn import schema
from eagleray.state.models import Registry
from ray_jobs import pipeline
from ray_jobs.report.outcome import Outcome
from serving import batching, environment, metrics, predictor, web

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data"
ROWS = 1000


class Reduced(NamedTuple):
    """How much of an example is run, and what it must reach on the test part all the same."""

    metric: str
    floor: float
    overrides: dict[str, str]


TEXT = {"features.text.vocabulary": "10000", "features.text.ngrams": "[1, 3]", "train.lr": "0.003"}
"""Texts are encoded once for each setting; a rate that learns within few epochs."""
EXAMPLES = {
    "breast_cancer": Reduced("roc_auc", 0.95, {"train.epochs": "10", "tune.trials": "1"}),
    "diabetes": Reduced("r2", 0.2, {"train.epochs": "20", "tune.trials": "1"}),
    "imbalanced": Reduced("recall", 0.6, {"train.epochs": "8"}),
    "grouped": Reduced("r2", 0.2, {"train.epochs": "8", "tune.folds": "3"}),
    "digits": Reduced("accuracy", 0.9, {"train.epochs": "5", "tune.trials": "1"}),
    "digits_augmented": Reduced("accuracy", 0.8, {"train.epochs": "6", "tune.trials": "1"}),
    "adult": Reduced("roc_auc", 0.88, {"train.epochs": "2"}),
    "adult_boosting": Reduced("roc_auc", 0.88, {"train.epochs": "4"}),
    "recommend": Reduced("ndcg_at_k", 0.2, {"train.epochs": "10", "tune.trials": "1"}),
    "rentals": Reduced("r2", 0.4, {"train.epochs": "10", "tune.trials": "1"}),
    "sms_spam": Reduced("f1", 0.8, {"train.epochs": "3", "tune.trials": "1", **TEXT}),
}


QUICK = ("breast_cancer",)
"""A table and texts; `make demo` runs digits, unit tests a regression."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EXAMPLES
    ],
)
def example(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ended(ray_cluster: None, example: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp(example)
    reduced = {"tune.trials": "2", **EXAMPLES[example].overrides}
    overrides = {"storage": folder.as_uri(), **reduced}
    file = ROOT / "examples" / f"{example}.yaml"
    source = spec.load(file).data.source
    if source.startswith("data/"):
        overrides["data.source"] = str(DATA / f"{Path(source).name}.gz")
    return pipeline.run(spec.load(file, overrides), console.Console(file=io.StringIO()))


def test_an_example_learns_even_at_a_reduced_size(example: str, ended: Outcome) -> None:
    reduced = EXAMPLES[example]
    assert ended.result.test[reduced.metric] > reduced.floor
    assert {one.failure for one in ended.trials} == {None}


def test_a_prediction_by_http_is_the_bundles_own(
    ended: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")  # `Metrics` sets it, for a process of its own
    chosen, dataset = ended.search.experiment, ended.search.dataset
    registry = Registry(storage.open(chosen.storage))
    made = bundle.load(registry, registry.resolve(chosen.name, "champion"))
    some = np.resize(dataset.split.test, ROWS)
    raw = json.loads(json.dumps(schema.to_json(dataset.schema, dataset.take(some))))
    with _server(made, tmp_path) as url:
        rows = [dict(zip(raw, values, strict=True)) for values in zip(*raw.values(), strict=True)]
        answers = _ask(url, rows)
    np.testing.assert_allclose(_outputs(answers, made), _expected(raw, made), 1e-6, 1e-6)


def _expected(raw: dict[str, Any], made: bundle.Bundle) -> np.ndarray:
    """The bundle's own outputs: of lists the scores."""
    outputs = made.predict(raw).outputs
    return outputs[:, : made.schema.target.k] if made.schema.target.user else outputs


def _ask(url: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Half of the rows one by one, the rest in one request."""
    half = len(rows) // 2
    requests = [[row] for row in rows[:half]] + [rows[half:]]
    with httpx.Client(base_url=url, timeout=60) as http, ThreadPoolExecutor(8) as pool:
        bodies = [{"instances": request} for request in requests]
        found = list(pool.map(lambda body: http.post("/predict", json=body), bodies))
    return [answer for got in found for answer in got.raise_for_status().json()["predictions"]]


def _outputs(answers: list[dict[str, Any]], made: bundle.Bundle) -> np.ndarray:
    classes = made.schema.target.classes
    if made.schema.target.user:
        return np.array([answer["scores"] for answer in answers])
    if not classes:
        return np.array([answer["value"] for answer in answers])
    return np.array([[answer["probabilities"][name] for name in classes] for answer in answers])


@contextmanager
def _server(made: bundle.Bundle, folder: Path) -> Iterator[str]:
    """A replica's application behind a real HTTP server, for the time of the block."""
    counted = metrics.Metrics(folder, made.name)
    application = web.Application(made.name, counted)
    with ThreadPoolExecutor(1) as thread:
        application.predictor = predictor.Predictor(made, batching.Limits(), thread, counted)
        (port,) = environment.free_ports(1)
        config = uvicorn.Config(application, port=port, log_level="error", ws="none")
        server = uvicorn.Server(config)
        running = threading.Thread(target=asyncio.run, args=(server.serve(),))
        running.start()
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as http:
                http.get(f"http://127.0.0.1:{port}/healthz").raise_for_status()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            running.join()
