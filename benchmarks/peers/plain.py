"""The model as a person would put it behind a web framework.

Legend: B rows, C classes.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from eagleray import bundle, storage
from eagleray.state.models import Registry

NAME = "bench"
KEY = "er_benchmark"  # no secret: of servers on loopback that end with the benchmark
MOST_ROWS, WAIT_S = 64, 0.001
"""Of a batch, where a peer makes batches."""


def asked() -> tuple[Path, int]:
    """The folder of the model and the port, from the command line."""
    return Path(sys.argv[1]), int(sys.argv[2])


class Plain:
    """Predicts rows in one batch, in the form that our endpoint answers in."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        versions = Registry(storage.open(folder.as_uri()))
        loaded = bundle.load(versions, versions.version(NAME, 1))
        self._model = loaded.engine.module  # type: ignore[attr-defined]
        self.names = [column.name for column in loaded.schema.columns]
        self._classes = loaded.schema.target.classes

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"model": NAME, "version": 1, "predictions": self.rows(body["instances"])}

    def bodies(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict the rows of several requests in one batch."""
        predictions = iter(self.rows([row for body in bodies for row in body["instances"]]))
        return [{"predictions": [next(predictions) for _ in body["instances"]]} for body in bodies]

    def rows(self, rows: list[dict[str, float]]) -> list[dict[str, Any]]:
        numbers = [[row[name] for name in self.names] for row in rows]
        with torch.inference_mode():
            logits_BC = self._model({"numeric": torch.tensor(numbers, dtype=torch.float32)})
            probabilities = torch.softmax(logits_BC, 1).tolist()
        return [_answer(dict(zip(self._classes, row, strict=True))) for row in probabilities]


def _answer(classes: dict[str, float]) -> dict[str, Any]:
    label = max(classes, key=lambda name: classes[name])
    return {"label": label, "probability": classes[label], "probabilities": classes}
