"""What several integration tests stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s import api
from tests import kube_api


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[kube_api.Server]:
    """An empty Kubernetes cluster, which kubectl's settings lead to; we are in namespace `ml`."""
    server = kube_api.Server()
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(server, tmp_path)))
    monkeypatch.setattr(api, "PAUSE_S", 0.01)
    yield server
    server.stop()
