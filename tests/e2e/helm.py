"""One door to Helm: the `helm` program of version 3 or 4, on the releases of a namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from eagleray import errors
from tests import helm_programs

CHART = Path(__file__).parents[2] / "helm" / "eagleray"
PATIENCE_S = 300


def find(namespace: str, folder: Path, wanted: str = "") -> Helm:
    """The program that is named, or of the version that is; else that on PATH, or Helm 4.

    Raises:
        UserError: it is not there.
    """
    majors = [str(one) for one in helm_programs.PACKAGES]
    program = str(helm_programs.program(int(wanted))) if wanted in majors else None
    program = program or shutil.which(wanted or "helm")
    if program is None and wanted:
        raise errors.UserError(
            f"EAGLERAY_E2E_HELM: must be a program, or {' or '.join(majors)}, but got {wanted}"
        )
    return Helm(program or str(helm_programs.program(4)), namespace, folder)


class Helm:
    """What is done with the releases of a namespace. Every method raises ClusterError."""

    def __init__(self, program: str, namespace: str, folder: Path) -> None:
        self.folder = folder / "helm"
        self.folder.mkdir()
        (self.folder / "helm").symlink_to(program)
        self._start = [program, "--namespace", namespace]

    def environment(self) -> dict[str, str]:
        """In which `helm` is this program, for what calls it by its name."""
        return {**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}

    def install(self, name: str, values: Mapping[str, Any]) -> None:
        self._run("install", name, str(CHART), "--values", "-", values=values)

    def upgrade(self, name: str, values: Mapping[str, Any]) -> None:
        self._run("upgrade", name, str(CHART), "--reset-values", "--values", "-", values=values)

    def rollback(self, name: str) -> None:
        """To the revision before."""
        self._run("rollback", name)

    def history(self, name: str) -> list[str]:
        """The statuses of its revisions, the oldest first."""
        return [one["status"] for one in json.loads(self._run("history", name, "--output", "json"))]

    def test(self, name: str, limit_s: float) -> None:
        self._run("test", name, "--timeout", f"{limit_s:.0f}s", limit_s=limit_s + 60)

    def uninstall(self, name: str) -> None:
        """Fine when there is no such release."""
        self._run("uninstall", name, "--ignore-not-found")

    def _run(
        self, *words: str, values: Mapping[str, Any] | None = None, limit_s: float = PATIENCE_S
    ) -> str:
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
        return ended.stdout
