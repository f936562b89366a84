"""KubeRay's definitions of its objects; `tests/data/README.md` says where they are from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "kuberay-1.7"


def schemas() -> dict[str, dict[str, Any]]:
    """OpenAPI schema of `ray.io/v1` by kind, made anew for each call."""
    found = {}
    for file in sorted(FOLDER.glob("*.json.gz")):
        spec = json.loads(gzip.decompress(file.read_bytes()))["spec"]
        (version,) = spec["versions"]
        found[spec["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    assert len(found) == 4, f"the definitions of {FOLDER} are not whole: {list(found)}"
    return found
