"""BentoML: one worker, with batches."""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.peers.ours import FOLDER
from benchmarks.peers.plain import MOST_ROWS, Plain, asked


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Predict:
    """Predicts the rows of a batch of requests."""

    def __init__(self) -> None:
        self._plain = Plain(Path(os.environ[FOLDER]))

    @bentoml.api(batchable=True, max_batch_size=MOST_ROWS, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def predict(self, instances: list[dict[str, float]]) -> list[dict[str, Any]]:
        return self._plain.rows(instances)


if __name__ == "__main__":
    folder, port = asked()
    words = ["-m", "bentoml", "serve", "benchmarks.peers.with_bentoml:Predict"]
    options = ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {FOLDER: str(folder)}
    os.execve(sys.executable, [sys.executable, *words, *options], environment)
