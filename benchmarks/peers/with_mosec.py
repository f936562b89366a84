"""mosec: one worker, with batches; its front, in Rust, is a process of its own."""

import os
import sys
from pathlib import Path
from typing import Any

import mosec

from benchmarks.peers.ours import FOLDER
from benchmarks.peers.plain import MOST_ROWS, WAIT_S, Plain, asked


class Predict(mosec.Worker):  # type: ignore[misc]
    """Predicts the rows of a batch of requests."""

    def __init__(self) -> None:
        super().__init__()
        self._plain = Plain(Path(os.environ[FOLDER]))

    def forward(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._plain.bodies(bodies)


if __name__ == "__main__":
    folder, port = asked()
    os.environ[FOLDER] = str(folder)
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    server = mosec.Server()
    wait_ms = max(1, round(WAIT_S * 1000))
    server.append_worker(Predict, max_batch_size=MOST_ROWS, max_wait_time=wait_ms, route="/predict")
    server.run()
