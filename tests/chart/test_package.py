"""A wheel has all files that the code reads, so that no command needs a checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.chart import chart

SOURCES = ("eagleray", "k8s", "ray_jobs", "serving", "helm", "setup.py", "pyproject.toml")


def test_a_wheel_has_the_whole_chart_and_all_files_of_the_packages(tmp_path: Path) -> None:
    for name in (*SOURCES, "README.md", "LICENSE"):
        source = chart.ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path / "out"), str(tmp_path)]
    subprocess.run(command, check=True)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.startswith("k8s/chart/")} == {
        f"k8s/chart/{one}" for one in _files(chart.FOLDER)
    }
    for package in ("eagleray", "k8s", "ray_jobs", "serving"):
        assert {f"{package}/{one}" for one in _files(chart.ROOT / package)} <= names
    assert "k8s/chart/templates/rayservice.yaml" in names


def _files(folder: Path) -> set[Path]:
    files = {one.relative_to(folder) for one in folder.rglob("*") if one.is_file()}
    return {one for one in files if "__pycache__" not in one.parts}
