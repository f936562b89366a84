"""LitServe: one worker, with batches."""

from pathlib import Path
from typing import Any

import litserve

from benchmarks.peers.plain import MOST_ROWS, WAIT_S, Plain, asked


class Api(litserve.LitAPI):  # type: ignore[misc]
    """Predicts the rows of a batch of requests; made in the process that starts the worker."""

    def __init__(self, folder: Path) -> None:
        super().__init__(max_batch_size=MOST_ROWS, batch_timeout=WAIT_S)
        self._folder = folder

    def setup(self, device: str) -> None:
        self._plain = Plain(self._folder)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return list(inputs)

    def predict(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self._plain.bodies(bodies)

    def unbatch(self, outputs: list[Any]) -> list[Any]:
        return outputs


if __name__ == "__main__":
    folder, port = asked()
    server = litserve.LitServer(Api(folder), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, log_level="error", generate_client_file=False)
