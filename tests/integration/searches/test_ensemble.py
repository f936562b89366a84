"""A search over several models whose winner is an ensemble: registered, served, and explained."""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from rich import console

from eagleray import bundle, spec
from eagleray.engines.ensemble import Ensemble
from eagleray.learn import schema
from eagleray.reports import contents
from eagleray.reports.page import page
from eagleray.state.models import Registry
from ray_jobs import bundles, pipeline, refit
from ray_jobs.report.outcome import Outcome
from serving import batching, metrics, predictor, web


@pytest.fixture(scope="module")
def ended(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("ensemble")
    random = np.random.default_rng(3)
    x_BF = random.uniform(-2, 2, (2000, 6))  # a slope for networks, and steps for trees
    y_B = 0.9 * x_BF[:, :5].sum(1) + np.floor(2 * x_BF[:, 5]) % 2 + random.normal(0, 0.3, 2000)
    frame = pd.DataFrame(x_BF, columns=list("abcdef")).assign(y=y_B)
    frame.to_csv(folder / "steps.csv", index=False)
    (folder / "steps.yaml").write_text(
        "name: steps\n"
        "data: {source: steps.csv, target: y, split: {validation: 0.3, test: 0.3}}\n"
        "model: {type: auto, families: [boosting, mlp]}\n"
        "train: {epochs: 9}\n"
        f"tune: {{trials: 8, ensemble: {{latency_ms: null}}}}\nstorage: {folder.as_uri()}\n"
    )
    out = console.Console(file=io.StringIO(), width=200)
    return pipeline.run(spec.load(folder / "steps.yaml"), out)


@pytest.fixture
def loaded(ended: Outcome) -> bundle.Bundle:
    registry = Registry(ended.search.storage)
    return bundle.load(registry, registry.version("steps", ended.result.version))


def rows(ended: Outcome, count: int) -> dict[str, list[Any]]:
    dataset = ended.search.dataset
    return schema.to_json(dataset.schema, dataset.take(dataset.split.test[:count]))


def test_it_has_members_of_several_models_and_predicts_their_mean(
    ended: Outcome, loaded: bundle.Bundle
) -> None:
    found = ended.result.ensemble
    assert found is not None
    assert found.kept, str(found)
    assert {one.model for one in found.members.values()} == {"boosting", "mlp"}
    assert isinstance(loaded.engine, Ensemble)
    by_number = {str(one.number): one for one in ended.trials}
    trials = [by_number[number] for number in found.members]
    anew = refit.of(ended.search, refit.selected(ended.search, trials))
    assert anew.done
    assert {one.model for one in found.members.values() if one.refit} == {"boosting"}
    models = [anew.model(one) or bundles.of(ended.search, one) for one in trials]
    raw, weights = rows(ended, 50), [one.weight for one in found.members.values()]
    outputs = [model.predict(raw).outputs for model in models]
    mean = np.average(outputs, axis=0, weights=weights)
    assert loaded.predict(raw).outputs == pytest.approx(mean, abs=1e-5)


def test_the_endpoint_answers_with_the_mean_and_explains_it(
    ended: Outcome, loaded: bundle.Bundle, tmp_path: Path
) -> None:
    raw = rows(ended, 3)
    instances = [dict(zip(raw, one, strict=True)) for one in zip(*raw.values(), strict=True)]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setenv(metrics.FOLDER, "")
        gauges = metrics.Metrics(tmp_path, "steps")
        served = web.Application("steps", gauges)
        served.predictor = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
        answers = ask(served, "/predict?explain=true", {"instances": instances})
    expected = loaded.predict(raw).outputs.tolist()
    for answer, value in zip(answers, expected, strict=True):
        assert answer["value"] == pytest.approx(value)
        explained = answer["explanation"]
        total = explained["mean"] + sum(explained["contributions"].values())
        assert total == pytest.approx(value, abs=1e-4)


def test_the_run_and_the_report_say_who_the_members_are(ended: Outcome) -> None:
    said = ended.page()
    assert f"steps version {ended.result.version} is the mean of" in said
    assert ended.summary()["ensemble"]["kept"]
    report = page(contents.of(ended.search.storage, "steps")).decode()
    assert "The trials that it is made of" in report
    assert "boosting" in report


def ask(application: Any, path: str, body: object) -> Any:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post(path, json=body)

    answer = asyncio.run(work())
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]
