"""A step of `make e2e` on replicas of this process: real storage, commands, models and HTTP."""

import asyncio
import contextlib
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
import skl2onnx
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eagleray import cli, storage
from eagleray.state.models import Registry
from serving import metrics, served
from serving.settings import Settings
from tests.e2e import constant, settings, test_2_rollouts
from tests.e2e.clients import Count
from tests.e2e.release import Release


class Here:
    """What a step asks of a release; time passes, and requests come, while it waits."""

    def __init__(self, folder: Path) -> None:
        self.storage, self._now, self._counts = (folder / "storage").as_uri(), 0.0, Counter[str]()
        (folder / "storage").mkdir()
        self._registry = Registry(storage.open(self.storage))
        frame = datasets.load_wine(as_frame=True).frame
        frame.to_csv(folder / "rows.csv", index=False)
        x_BF, y_B = frame.drop(columns="target").to_numpy(np.float32), frame["target"].astype(str)
        learned = make_pipeline(StandardScaler(), LogisticRegression()).fit(x_BF, y_B)
        good = skl2onnx.to_onnx(learned, x_BF[:1], options={id(learned): {"zipmap": False}})
        (folder / "good.onnx").write_bytes(good.SerializeToString())
        files = ["--onnx", str(folder / "good.onnx"), "--example", str(folder / "rows.csv")]
        more = ["--target", "target", "--storage", self.storage]
        self.eagleray("models", "add", settings.MODEL, *files, *more)
        self._registry.promote(settings.MODEL, 1)
        gauges = metrics.Metrics(folder / "metrics", settings.MODEL)
        made = Settings(name=settings.MODEL, storage=self.storage)
        self.replica = served.Served(made, gauges, clock=lambda: self._now)
        self.replica.versions.check()
        self._row = frame.drop(columns="target").iloc[0].to_dict()

    def alias(self) -> int:
        return self._registry.aliases(settings.MODEL).values["champion"]

    def eagleray(self, *words: str) -> Any:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert cli.main([*words, "--json"]) == 0, words
        return json.loads(said.getvalue())

    def predict(self) -> dict[str, Any]:
        return dict(asyncio.run(self._ask(1))[0].json())

    @contextlib.contextmanager
    def load(self, **_: float) -> Iterator[Any]:
        yield SimpleNamespace(now=self._count, settled=self._count)

    def wait(self, wish: str, missing: Callable[[], str], _: float) -> None:
        for _ in range(100):
            if not (seen := missing()):
                return
            for answer in asyncio.run(self._ask(60)):
                version = answer.headers.get("x-eagleray-version", "")
                self._counts["failed" if answer.status_code != 200 else version] += 1
            self._now += 2
            self.replica.controller.look()
            self.replica.versions.check()
        raise TimeoutError(f"{wish}: {seen}")

    def _count(self) -> Count:
        versions = {name: n for name, n in self._counts.items() if name != "failed"}
        return Count(sum(versions.values()), self._counts["failed"], versions)

    async def _ask(self, count: int) -> list[httpx.Response]:
        transport = httpx.ASGITransport(self.replica.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://e2e") as client:
            body = {"instances": [self._row]}
            return [await client.post("/predict", json=body) for _ in range(count)]


def test_the_step_of_a_bad_canary_holds_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")
    random.seed(0)
    here = Here(tmp_path)
    step = test_2_rollouts.test_a_bad_canary_is_rolled_back_by_itself_and_fails_no_request
    step(cast(Release, here), tmp_path)
    here.replica.stop()


@pytest.mark.parametrize("label", constant.CLASSES)
def test_the_wrong_version_of_the_steps_gives_one_class(tmp_path: Path, label: str) -> None:
    import onnxruntime

    model, rows = constant.write(tmp_path, label)
    session = onnxruntime.InferenceSession(model.read_bytes())
    width = len(rows.read_text().splitlines()[0].split(",")) - 1
    (found,) = session.run(None, {"rows": np.random.default_rng(0).random((5, width), np.float32)})
    assert [constant.CLASSES[index] for index in found.argmax(1)] == [label] * 5
