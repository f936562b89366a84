"""The driver process of a run that was submitted: it fetches the package and does the rest."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from rich.console import Console

from eagleray import spec
from eagleray.client import package
from eagleray.state import runs
from ray_jobs import pipeline
from ray_jobs.report import page


def drive(run: runs.Run) -> None:
    """Run the driver of a run inside the cluster, and put its result into storage.

    SIGTERM ends it like Ctrl-C: what is under way is kept.

    Raises:
        EagleRayError: see `eagleray.errors`.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="eagleray-run-") as folder:
        outcome = pipeline.run(
            spec.load(package.fetch(run, Path(folder))),
            Console(highlight=False),
            os.environ.get("RAY_ADDRESS", "auto"),
            began=lambda search_id: runs.put(run, runs.Begun(search=search_id)),
        )
        text = page.text(outcome)
        runs.put(run, runs.Result(summary=outcome.summary(), page=text))
    print(text)
