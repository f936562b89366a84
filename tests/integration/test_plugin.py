"""An installed package adds a task, a model, a loss, a metric and a column kind, and edits nothing.

Each command is a process of its own that finds `tests.plugin` by its entry point, and so do the
workers and the replica that it starts.
"""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from eagleray import errors, spec
from serving import environment

ROOT = Path(__file__).parents[2]
FILE = """
name: visits
data: {source: visits.csv, target: visits}
model: {type: wide, bias: {choice: [true, false]}}
train: {loss: poisson, lr: 0.05, epochs: 10}
tune: {trials: 2}
compute: {cpus: 2}
"""


class Home:
    """A folder with an experiment and a storage, where the package is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.storage = folder, (folder / "storage").as_uri()
        (folder / "storage").mkdir()
        described = folder / "installed" / "plugin-1.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
        (described / "entry_points.txt").write_text("[eagleray]\nmembers = tests.plugin\n")
        (folder / "visits.yaml").write_text(f"{FILE}storage: {self.storage}\n")
        rows(400).to_csv(folder / "visits.csv", index=False)
        path = os.pathsep.join([str(described.parent), str(ROOT)])
        self.environment = {**os.environ, "PYTHONPATH": path, "EAGLERAY_STORAGE": self.storage}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "eagleray", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=self.environment, cwd=self.folder
        )

    def run(self, *arguments: str) -> str:
        with self.start(*arguments) as process:
            printed, _ = process.communicate()
        assert process.returncode == 0, arguments
        return printed


def rows(count: int) -> pd.DataFrame:
    """Visits of a day, of which there are more when it is warm and long open."""
    random = np.random.default_rng(0)
    warmth = random.normal(size=count).round(3)
    minutes = random.integers(0, 600, count)
    open_for = [f"{minute // 60}h{minute % 60}m" for minute in minutes]
    visits = random.poisson(np.exp(1.1 + 0.8 * warmth + minutes / 750))
    inputs = {"warmth": warmth, "wind": random.random(count), "open": open_for}
    return pd.DataFrame({**inputs, "visits": visits})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def summary(home: Home) -> dict[str, Any]:
    """What a search came to."""
    found: dict[str, Any] = json.loads(home.run("run", "visits.yaml", "--json"))
    return found


@pytest.fixture(scope="module")
def url(home: Home, summary: dict[str, Any]) -> Iterator[str]:
    """The served winner."""
    (port,) = environment.free_ports(1)
    with home.start("serve", "visits", "--port", str(port), "--json") as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            assert process.wait(60) == 0


def test_without_the_package_its_names_are_refused(home: Home) -> None:
    with pytest.raises(errors.SpecError) as caught:
        spec.load(home.folder / "visits.yaml")
    assert (
        "model.type: must be one of mlp, tabm, boosting, auto, text, image, recommender, module:fu"
        in str(caught.value)
    )
    assert "train.loss: must be one of auto, cross_entropy, " in str(caught.value)


def test_the_kind_is_inferred_and_its_options_are_taken(home: Home) -> None:
    assert "# open    duration\n" in home.run("check", "visits.yaml")
    named = json.dumps({"open": {"type": "duration", "scale": "quantile"}})
    written = home.run("check", "visits.yaml", "--set", f"features={named}")
    chosen = yaml.safe_load(written)["features"]["open"]
    assert (chosen["type"], chosen["scale"]) == ("duration", "quantile")


def test_a_search_trains_the_model_with_the_loss_and_selects_by_the_metric(
    summary: dict[str, Any],
) -> None:
    assert summary["metric"] == "poisson_deviance"
    assert [trial["failure"] for trial in summary["trials"]] == [None, None]
    assert summary["test"].keys() == {"poisson_deviance", "mae", "r2"}
    assert summary["test"]["r2"] > 0.5
    assert summary["warnings"] == []


def test_the_endpoint_gives_the_tasks_answer_and_describes_it(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as http:
        document = http.get("/openapi.json").json()
        day = {"wind": 0.5, "open": "5h"}
        instances = [{"warmth": warmth, **day} for warmth in (-1.0, 1.0)]
        answers = http.post("/predict", json={"instances": instances}).json()["predictions"]
    answer = document["components"]["schemas"]["Answer"]
    assert answer["required"] == ["rate", "none"]
    assert "(counts)" in document["info"]["description"]
    cold, warm = answers
    assert warm["rate"] > 2 * cold["rate"]
    assert cold["none"] == pytest.approx(np.exp(-cold["rate"]))


def test_the_endpoint_reads_the_kind_and_describes_it(url: str) -> None:
    days = [{"warmth": 0, "wind": 0.5, "open": time} for time in ("1h30m", 5400, "9h", "99h", "x")]
    with httpx.Client(base_url=url, timeout=30) as http:
        document = http.get("/openapi.json").json()
        page = http.get("/", headers={"accept": "text/html"}).text
        answers = http.post("/predict", json={"instances": days[:4]}).json()["predictions"]
        refused = http.post("/predict", json={"instances": days})
    described = document["components"]["schemas"]["Row"]["properties"]["open"]
    assert r"(\d+h)?" in described["oneOf"][1]["pattern"]
    assert "a duration such as 1h30m, " in page
    short, same, long, odd = answers
    assert short == same
    assert long["rate"] > 1.5 * short["rate"]
    assert odd["warnings"][0].startswith("open: 356400 is far outside the training rows' range")
    assert refused.status_code == 422
    assert refused.json()["error"]["message"] == "a duration such as 1h30m is needed, but got 'x'"


DRIFT = """
import json
from eagleray import bundle, storage
from eagleray.state.models import Registry
models = Registry(storage.open({uri!r}))
version = models.resolve("visits", "champion")
(column,) = [one for one in bundle.load(models, version).schema.columns if one.name == "open"]
statistics = json.loads(models.read(version, "reference.json"))["open"]
print(column.kind.shares(statistics, column.kind.parse(column, ["9h59m"] * 9 + [""])))
"""


def test_drift_of_the_kind_is_measured(home: Home, summary: dict[str, Any]) -> None:
    command = [sys.executable, "-c", DRIFT.format(uri=home.storage)]
    shares = json.loads(subprocess.check_output(command, env=home.environment, text=True))
    assert shares == [0.0] * 9 + [1.0]


def test_rows_of_a_file_are_predicted_with_the_tasks_columns(home: Home, url: str) -> None:
    (home.folder / "days.csv").write_text("warmth,wind,open\n-1,0.5,5h\n1,0.5,5h\nhot,0.5,5h\n")
    table = list(csv.DictReader(io.StringIO(home.run("predict", "visits", "days.csv"))))
    assert list(table[0]) == ["rate", "none", "warnings", "error"]
    with httpx.Client(base_url=url, timeout=30) as http:
        body = {"instances": [{"warmth": 1.0, "wind": 0.5, "open": "5h"}]}
        (served,) = http.post("/predict", json=body).json()["predictions"]
    assert float(table[1]["rate"]) == pytest.approx(served["rate"])
    assert (table[2]["rate"], table[2]["error"][:15]) == ("", "row 3: warmth: ")
