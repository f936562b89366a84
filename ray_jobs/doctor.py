"""A Ray cluster, as `eagleray doctor --address` looks at it: through its dashboard."""

from __future__ import annotations

import time
from typing import Any

import requests

from eagleray import __version__, doctor, ray_compat
from eagleray.doctor import Versions
from eagleray.findings import Finding, failed, passed

SILENCE_S = (5.0, 10.0)
"""Longest wait for a connection, and for the next byte of an answer."""
_DASHBOARD = "Ray dashboard"
_LET_IN = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=token.txt"
_INSTALL = f"on every node: pip install 'eagleray=={__version__}'"


def examine(address: str) -> list[Finding]:
    """Look at the cluster whose dashboard has this address."""
    before = time.time()
    try:
        answer = _ask(address, "/api/version")
    except requests.RequestException as error:
        said = f"{address}: must be a Ray dashboard that answers, but {type(error).__name__}"
        return [failed(said, "ray start --head --dashboard-host=0.0.0.0").named(_DASHBOARD)]
    ahead = doctor.ahead(doctor.dated(answer.headers.get("Date")), before, time.time())
    clock = doctor.clock(ahead, address).named("Ray clock")
    told = _ray(answer) if answer.ok else ""
    if not told:
        return [_refused(address, answer.status_code).named(_DASHBOARD), clock]
    theirs = Versions(told, _python(address))
    reach = passed(f"{address} answers").named(_DASHBOARD)
    return [reach, clock, *doctor.versions(doctor.here(), theirs, f"on {address}", _INSTALL)]


def _refused(address: str, status: int) -> Finding:
    if status == requests.codes.unauthorized:
        return failed(f"{address} asks for a token", _LET_IN)
    if status == requests.codes.forbidden:
        return failed(f"{address} does not accept this token", _LET_IN)
    said = f"{address}: must be a Ray dashboard, but answers {status} to /api/version"
    return failed(said, "--address http://head:8265")


def _ray(answer: requests.Response) -> str:
    """The version that a dashboard tells; empty when it is something else that answers."""
    try:
        said = answer.json()
    except requests.JSONDecodeError:
        return ""
    return str(said.get("ray_version", "")) if isinstance(said, dict) else ""


def _python(address: str) -> str:
    """The head's Python, which Ray notes in the cluster's metadata; empty when it does not say."""
    try:
        found: dict[str, Any] = _ask(address, "/api/v0/cluster_metadata").json()
    except requests.RequestException:
        return ""
    return str(found.get("data", {}).get("pythonVersion", ""))


def _ask(address: str, path: str) -> requests.Response:
    """Ray's own client has no public way to read a header, or what it does not know itself."""
    return requests.get(
        address.rstrip("/") + path, headers=ray_compat.dashboard_headers(), timeout=SILENCE_S
    )
