"""The application of our replica by itself, as servers other than Ray Serve's take it."""

import os
from pathlib import Path

from benchmarks.peers.plain import NAME
from eagleray.engines import placement
from serving import metrics, served, web
from serving.settings import Settings

FOLDER = "BENCHMARK_FOLDER"
"""Environment variable: the folder of the model."""


def application() -> web.Application:
    """The application, once it has loaded the model."""
    folder = Path(os.environ[FOLDER])
    settings = Settings(name=NAME, storage=folder.as_uri())
    placement.use(settings.place())
    made = served.Served(settings, metrics.Metrics(folder / "metrics", NAME))
    made.versions.check()
    made.start()
    return made.application
