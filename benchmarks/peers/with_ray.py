"""Ray Serve: one replica with its defaults."""

import signal
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.plain import Plain, asked


class Predict:
    """Answers a request at a time."""

    def __init__(self, folder: Path) -> None:
        self._plain = Plain(folder)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return self._plain.predict(await request.json())


folder, port = asked()
ray.init(address="local", include_dashboard=False, log_to_driver=False)
signal.signal(signal.SIGTERM, signal.default_int_handler)
serve.start(http_options={"port": port})
try:
    deployed: Any = serve.deployment(Predict)
    serve.run(deployed.bind(folder), route_prefix="/predict")
    while True:  # a signal that another thread gets does not end a pause
        time.sleep(1)
except KeyboardInterrupt:
    serve.shutdown()
    ray.shutdown()
