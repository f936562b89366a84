"""What tests of pages stand on: the application under uvicorn, and Debian's Chromium."""

from __future__ import annotations

import base64
import contextlib
import io
import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from eagleray import bundle
from eagleray.engines.torch import Torch
from eagleray.learn import features, models, schema
from serving import batching, metrics, predictor, web

CHROMIUM = shutil.which("chromium")
"""Debian's, which `make test` installs."""


def count_anew(patch: pytest.MonkeyPatch) -> None:
    """Let metrics that are made from now on write to their folder, as in a process of their own."""
    from prometheus_client import values

    patch.setattr(values, "ValueClass", values.MultiProcessValue())


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


def pictures(column: schema.Column, pictures: list[Any]) -> bundle.Bundle:
    """A model of pictures with random weights; ten digits are its classes."""
    raw = {column.name: pictures}
    digits = schema.Target(name="digit", task="multiclass", classes=tuple("0123456789"))
    known = schema.Schema(columns=(column,), target=digits)
    transforms = features.Transforms.fit(known, {}, schema.parse(known, raw))
    options = models.parse({"type": "image"})
    torch.manual_seed(0)
    engine = Torch(options, models.build(options, transforms.shape, 10))
    made = bundle.Bundle(schema=known, transforms=transforms, engine=engine, scale={})
    made.golden = bundle.Golden(raw, made.predict(raw).outputs.tolist())
    return made


def png(rows: Any) -> str:
    """A grey picture as PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(np.array(rows, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
