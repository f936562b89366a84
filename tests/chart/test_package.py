"""The chart travels with the package, so that `eagleray deploy` works without a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.chart import chart

SOURCES = ("eagleray", "k8s", "ray_jobs", "serving", "helm", "setup.py", "pyproject.toml")


def test_a_wheel_has_the_whole_chart(tmp_path: Path) -> None:
    for name in (*SOURCES, "README.md", "LICENSE"):
        source = chart.ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path / "out"), str(tmp_path)]
    subprocess.run(command, check=True)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("k8s/chart/")}
    files = {one.relative_to(chart.FOLDER) for one in chart.FOLDER.rglob("*") if one.is_file()}
    kept = {f"k8s/chart/{one}" for one in files if "__pycache__" not in one.parts}
    assert names == kept
    assert "k8s/chart/templates/rayservice.yaml" in names
