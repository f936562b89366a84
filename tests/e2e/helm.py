"""One door to Helm: the `helm` program where there is one, else Helm 4 in this process."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import helm_python
import yaml

from eagleray import errors

CHART = Path(__file__).parents[2] / "helm" / "eagleray"
PATIENCE_S = 300


class Helm(Protocol):
    """What is done with the releases of a namespace. Every method raises ClusterError."""

    def install(self, name: str, values: Mapping[str, Any]) -> None: ...

    def upgrade(self, name: str, values: Mapping[str, Any]) -> None: ...

    def rollback(self, name: str) -> None:
        """To the revision before."""

    def test(self, name: str, limit_s: float) -> None: ...

    def uninstall(self, name: str) -> None:
        """Fine when there is no such release."""


def find(namespace: str, wanted: str = "") -> Helm:
    """The program that is named, or on PATH; `sdk` asks for Helm in this process."""
    program = None if wanted == "sdk" else shutil.which(wanted or "helm")
    if program is None and wanted not in ("", "sdk"):
        raise errors.UserError(f"EAGLERAY_E2E_HELM: must be a program or sdk, but got {wanted}")
    return Program(program, namespace) if program else InProcess(namespace)


class Program:
    """The `helm` program, version 3 or 4."""

    def __init__(self, program: str, namespace: str) -> None:
        self._start = [program, "--namespace", namespace]

    def install(self, name: str, values: Mapping[str, Any]) -> None:
        self._run("install", name, str(CHART), "--values", "-", values=values)

    def upgrade(self, name: str, values: Mapping[str, Any]) -> None:
        self._run("upgrade", name, str(CHART), "--reset-values", "--values", "-", values=values)

    def rollback(self, name: str) -> None:
        self._run("rollback", name)

    def test(self, name: str, limit_s: float) -> None:
        self._run("test", name, "--timeout", f"{limit_s:.0f}s", limit_s=limit_s + 60)

    def uninstall(self, name: str) -> None:
        self._run("uninstall", name, "--ignore-not-found")

    def _run(
        self, *words: str, values: Mapping[str, Any] | None = None, limit_s: float = PATIENCE_S
    ) -> None:
        command = [*self._start, *words]
        given = None if values is None else yaml.safe_dump(dict(values))
        try:
            ended = subprocess.run(
                command, input=given, capture_output=True, text=True, check=False, timeout=limit_s
            )
        except subprocess.TimeoutExpired as expired:
            raise errors.ClusterError(
                f"helm {' '.join(words)}: not within {limit_s:g} s"
            ) from expired
        if ended.returncode:
            raise errors.ClusterError(f"helm {' '.join(words)}: {ended.stderr.strip()}")


class InProcess:
    """Helm's own code, by helm-python-sdk."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def install(self, name: str, values: Mapping[str, Any]) -> None:
        self._do("install", CHART, name, dict(values), namespace=self._namespace)

    def upgrade(self, name: str, values: Mapping[str, Any]) -> None:
        options: dict[str, Any] = {"namespace": self._namespace, "reset_values": True}
        self._do("upgrade", CHART, name, dict(values), **options)

    def rollback(self, name: str) -> None:
        self._do("rollback", name)

    def test(self, name: str, limit_s: float) -> None:
        self._do("test", name, limit_s=limit_s)

    def uninstall(self, name: str) -> None:
        self._do("uninstall", name, ignore_not_found=True)

    def _do(self, action: str, *words: Any, limit_s: float = PATIENCE_S, **options: Any) -> None:
        try:
            with helm_python.Config(namespace=self._namespace, **_kubeconfig()) as config:
                getattr(config, action)(*words, timeout=int(limit_s), **options)
        except helm_python.HelmError as failure:
            raise errors.ClusterError(f"helm {action}: {failure}") from failure


def _kubeconfig() -> dict[str, Any]:
    """One file is named, for Helm knows the environment only as it was when this process began."""
    file = os.environ.get("KUBECONFIG", "")
    return {"kubeconfig_path": file} if file and os.pathsep not in file else {}
