"""MLServer: one process, with batches, over the Open Inference Protocol."""

import json
import os
import sys
from pathlib import Path

from mlserver import MLModel, types

from benchmarks.peers.ours import FOLDER
from benchmarks.peers.plain import MOST_ROWS, NAME, WAIT_S, Plain, asked


class Predict(MLModel):  # type: ignore[misc]
    """Predicts the rows of a batch of requests."""

    async def load(self) -> bool:
        self._plain = Plain(Path(os.environ[FOLDER]))
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        columns = [tensor.data.root for tensor in payload.inputs]
        rows = [
            dict(zip(self._plain.names, row, strict=True)) for row in zip(*columns, strict=True)
        ]
        answers = self._plain.rows(rows)
        values = [one for answer in answers for one in answer["probabilities"].values()]
        shape = [len(rows), len(values) // len(rows)]
        tensor = types.ResponseOutput(
            name="probabilities", shape=shape, datatype="FP64", data=values
        )
        return types.InferenceResponse(model_name=self.name, outputs=[tensor])


if __name__ == "__main__":
    folder, port = asked()
    home = folder / "mlserver"
    home.mkdir()
    model: dict[str, object] = {
        "name": NAME,
        "implementation": "benchmarks.peers.with_mlserver.Predict",
    }
    model |= {"max_batch_size": MOST_ROWS, "max_batch_time": WAIT_S}
    (home / "model-settings.json").write_text(json.dumps(model))
    plain: dict[str, object] = {
        "parallel_workers": 0,
        "debug": False,
        "metrics_endpoint": None,
        "host": "127.0.0.1",
    }
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    (home / "settings.json").write_text(json.dumps(plain | ports))
    environment = os.environ | {FOLDER: str(folder)}
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execve(program, [program, "start", str(home)], environment)
