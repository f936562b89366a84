"""What pyproject.toml cannot say: the Helm chart travels in the package of who installs it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CHART = Path("helm", "eagleray")


class WithChart(build_py):
    """Copy the chart to k8s/chart of a wheel; a checkout uses it where it is (k8s/deploy.py)."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode and CHART.is_dir():  # the cluster's image has no use for it
            shutil.copytree(
                CHART,
                Path(self.build_lib, "k8s", "chart"),
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )


setup(cmdclass={"build_py": WithChart})
