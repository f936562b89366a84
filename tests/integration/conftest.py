"""What several integration tests stand on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s import api, deploy
from tests import helm_programs, kube_api


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[kube_api.Server]:
    """A cluster that knows no kind yet, by kubectl's settings; the current namespace is `ml`."""
    yield from connected(kube_api.Server({}), tmp_path, monkeypatch)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[kube_api.Server]:
    """An empty cluster with KubeRay's kinds, and `helm` 4 on PATH; the namespace is `ml`."""
    path = f"{helm_programs.program(4).parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(deploy, "PAUSE_S", 0.05)
    yield from connected(kube_api.Server(), tmp_path, monkeypatch)


def connected(
    server: kube_api.Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[kube_api.Server]:
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(server, folder)))
    monkeypatch.setattr(api, "PAUSE_S", 0.01)
    yield server
    server.stop()
