"""An emulation of the Kubernetes API behind real HTTP, and a kubeconfig that leads to it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import kmock
import yaml


class Server:
    """The emulated API, in a thread of its own; `stop` takes it away."""

    emulator: type[kmock.KubernetesEmulator] = kmock.KubernetesEmulator

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ended, started = asyncio.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # stopped before
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        async with self.emulator() as self.mock, kmock.Server(self.mock) as server:
            self.url = str(server.url)
            started.set()
            await self._ended.wait()


def kubeconfig(server: Server, folder: Path, namespace: str = "ml") -> Path:
    """A file whose current context is a namespace of the emulated cluster."""
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    settings = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(settings))
    return file
