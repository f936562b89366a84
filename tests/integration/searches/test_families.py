"""Searches over the models for tables, on real Ray: found, registered, served and explained."""

import asyncio
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich import console

from eagleray import bundle, spec
from eagleray.learn import schema
from eagleray.state.models import Registry
from ray_jobs import pipeline
from ray_jobs.report.outcome import Outcome
from serving import batching, metrics, predictor, web

RATES = "{epochs: 9, lr: {loguniform: [1.0e-2, 1.0e-1]}}"
FAMILIES = {
    "tabm": ("{type: tabm, members: 4, width: {choice: [16, 32]}, bins: 8, embedding: 4}", RATES),
    "boosting": ("{type: boosting, rounds: 5, leaves: {choice: [7, 15]}, l2: 0.1}", RATES),
    "auto": ("{type: auto}", "{epochs: 9}"),
}
"""The sections `model` and `train`."""


QUICK = ("tabm",)
"""Trees and searches over models are in `test_ensemble` too."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES
    ],
)
def ended(
    ray_cluster: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Outcome:
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / "tumours.yaml"
    model, train = FAMILIES[request.param]
    file.write_text(
        "name: tumours\ndata: {source: 'dataset:breast_cancer', target: target}\n"
        f"model: {model}\ntrain: {train}\n"
        f"tune: {{trials: 4, cost: latency}}\nstorage: {folder.as_uri()}\n"
    )
    return pipeline.run(spec.load(file), console.Console(file=io.StringIO(), width=200))


@pytest.fixture
def served(ended: Outcome, tmp_path: Path) -> Iterator[web.Application]:
    registry = Registry(ended.search.storage)
    loaded = bundle.load(registry, registry.version("tumours", ended.result.version))
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setenv(metrics.FOLDER, "")
        gauges = metrics.Metrics(tmp_path, "tumours")
        made = web.Application("tumours", gauges)
        made.predictor = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
        yield made


def ask(application: Any, path: str, body: object) -> Any:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post(path, json=body)

    answer = asyncio.run(work())
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def test_trials_report_epochs_that_the_scheduler_compares_and_the_best_is_good(
    ended: Outcome,
) -> None:
    assert ended.result.test["roc_auc"] > 0.97
    assert {one.status for one in ended.trials} <= {"finished", "stopped"}
    assert all(len(one.history) == one.epoch for one in ended.trials)
    assert 5 < max(one.epoch for one in ended.trials) <= 9
    assert all(one.costs["latency"] > 0 for one in ended.trials if one.status == "finished")


def test_the_endpoint_answers_as_the_model_and_explains_it(
    ended: Outcome, served: web.Application
) -> None:
    dataset = ended.search.dataset
    rows = schema.to_json(dataset.schema, dataset.take(dataset.split.test[:5]))
    instances = [dict(zip(rows, one, strict=True)) for one in zip(*rows.values(), strict=True)]
    answers = ask(served, "/predict?explain=true", {"instances": instances})
    registry = Registry(ended.search.storage)
    loaded = bundle.load(registry, registry.version("tumours", ended.result.version))
    loaded.verify()
    outputs = loaded.predict(rows).outputs
    classes = dataset.schema.target.classes
    for answer, output in zip(answers, outputs, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(output)
        assert answer["label"] == classes[int(np.argmax(output))]
        assert len(answer["explanation"]["contributions"]) == len(dataset.schema.columns)
