"""The application under uvicorn in a thread, and Debian's Chromium: what tests of pages stand on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, sync_playwright

from eagleray import bundle
from serving import batching, metrics, predictor, web

CHROMIUM = "/usr/bin/chromium"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def served(application: Any) -> Iterator[str]:
    """Serve an ASGI application on a free port; yields its URL without a path."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        running = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


def application(folder: Path, loaded: bundle.Bundle, number: int = 3) -> web.Application:
    """An application of one version, without storage."""
    gauges = metrics.Metrics(folder, "left")
    made = web.Application("left", gauges)
    loaded.name, loaded.number = "left", number
    gauges.serving(number, instead_of=None)
    thread = ThreadPoolExecutor(1)
    made.predictor = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
    return made
