"""Models made elsewhere, added, promoted and served by the command line: real Ray, real HTTP."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from serving import environment
from tests import elsewhere
from tests.integration.test_serving import wait

NAME = "cancer"
ROWS = elsewhere.cancer().iloc[::9]
INPUTS = ROWS.drop(columns="diagnosis")
FILES = {"onnx": elsewhere.classifier_file, "lightgbm": elsewhere.booster_text}


def eagleray(*command: str, folder: Path) -> str:
    whole = [sys.executable, "-m", "eagleray", *command, "--storage", folder.as_uri()]
    return subprocess.run(whole, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a model of scikit-learn as version 1, the champion, and a booster as 2."""
    made = tmp_path_factory.mktemp("elsewhere")
    example = made / "example.csv"
    elsewhere.cancer().to_csv(example, index=False)
    for number, (engine, content) in enumerate(FILES.items(), start=1):
        file = made / engine
        file.write_bytes(content())
        options = ("--example", str(example), "--target", "diagnosis")
        said = eagleray("models", "add", NAME, f"--{engine}", str(file), *options, folder=made)
        assert f"version {number}; binary" in said
    eagleray("models", "promote", NAME, "1", folder=made)
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    (port,) = environment.free_ports(1)
    options = ["--storage", folder.as_uri(), "--port", str(port), "--max", "1", "--json"]
    command = [sys.executable, "-m", "eagleray", "serve", NAME, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(60)


def ask(url: str, row: dict[str, object] | None = None) -> httpx.Response:
    rows = [row] if row else INPUTS.to_dict("records")
    return httpx.post(f"{url}/v1/models/{NAME}:predict", json={"instances": rows}, timeout=60)


def benign(answer: httpx.Response) -> list[float]:
    return [one["probabilities"]["benign"] for one in answer.json()["predictions"]]


def test_an_onnx_model_is_served_and_then_a_booster_in_its_place(url: str, folder: Path) -> None:
    answer = ask(url)
    expected = elsewhere.classifier().predict_proba(INPUTS.to_numpy(np.float32))[:, 0]
    np.testing.assert_allclose(benign(answer), expected, atol=1e-5)
    assert answer.headers["x-eagleray-version"] == "1"

    eagleray("models", "promote", NAME, "2", folder=folder)
    wait(lambda: ask(url).headers["x-eagleray-version"] == "2", 30)
    boosted = elsewhere.booster().predict(INPUTS, num_threads=1)
    np.testing.assert_allclose(benign(ask(url)), boosted, atol=1e-5)


def test_bad_rows_are_refused_by_field_as_those_of_a_trained_version(url: str) -> None:
    row = INPUTS.iloc[0].to_dict()
    wrong = ask(url, row | {"mean radius": "wide"})
    assert wrong.status_code == 422
    assert wrong.json()["error"]["details"][0]["field"] == "instances[0].mean radius"
    assert ask(url, {"mean radius": 1.0}).status_code == 422
    assert (
        "far outside"
        in ask(url, row | {"mean radius": 1e9}).json()["predictions"][0]["warnings"][0]
    )


def test_the_document_describes_the_added_schema(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    assert "mean radius" in json.dumps(document)
