"""`eagleray doctor`: checks of storage and of a Ray cluster, and of their clocks and versions.

`eagleray/machine.py` checks this machine, and `k8s/diagnose/checks.py` Kubernetes.
"""

import contextlib
import importlib.metadata
import platform
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from eagleray import __version__, errors, ray_compat, storage
from eagleray.findings import Finding, failed, passed, skipped, warned
from eagleray.storage import Storage

WARN_S = 5.0
REFUSED_S = 900.0
"""AWS refuses a signature whose time is 15 minutes from its own (RequestTimeTooSkewed)."""
ATTEMPTS = 2
"""Tries of each request to storage: `doctor` reports the present state, it does not wait."""
SILENCE_S = (5.0, 10.0)
"""Longest wait for a connection to a dashboard, and for the next byte of its answer."""
_SYNC = "sudo timedatectl set-ntp true"
_CONDITIONS = (
    "use a server with conditional writes: AWS S3, MinIO, R2, Ceph, SeaweedFS 4.48 or newer; "
    "here: eagleray local up"
)


class Versions(NamedTuple):
    """The versions of Ray and Python somewhere; empty where they are not known."""

    ray: str = ""
    python: str = ""


def installed() -> Versions:
    """The versions of this process."""
    return Versions(importlib.metadata.version("ray"), platform.python_version())


def check_storage(uri: str) -> list[Finding]:
    """Check access to storage, its conditional writes and its clock."""
    try:
        store = storage.open(uri, attempts=ATTEMPTS)
    except errors.EagleRayError as error:
        return [failed(str(error), "--storage s3://bucket").named("storage")]
    before, server_time = time.time(), None
    with contextlib.suppress(errors.StorageError):
        server_time = store.clock()
    seen = clock(clock_offset(server_time, before, time.time()), store.uri).named("storage clock")
    return [*probe(store), seen]


def check_ray(address: str) -> list[Finding]:
    """Check a Ray cluster through its dashboard: access, clock and versions."""
    before, fix = time.time(), "ray start --head --dashboard-host=0.0.0.0"
    try:
        status, date, body = _ask(address, "/api/version")
    except OSError as error:  # base of all errors of requests
        law = f"{address}: must be a Ray dashboard that answers, but {type(error).__name__}"
        return [failed(law, fix).named("Ray dashboard")]
    seen = clock(clock_offset(parse_date(date), before, time.time()), address).named("Ray clock")
    theirs = Versions(str(body.get("ray_version", "")))
    if status != 200 or not theirs.ray:
        return [_refused(address, status).named("Ray dashboard"), seen]
    with contextlib.suppress(OSError):
        metadata = _ask(address, "/api/v0/cluster_metadata")[2].get("data", {})
        theirs = theirs._replace(python=str(metadata.get("pythonVersion", "")))
    fix = f"on every node: pip install 'eagleray=={__version__}'"
    found = versions(installed(), theirs, f"on {address}", fix)
    return [passed(f"{address} answers").named("Ray dashboard"), seen, *found]


def probe(store: Storage) -> list[Finding]:
    """Write, read and list a scratch object, and try both conditional writes on it."""
    key = f"doctor-{secrets.token_hex(8)}"  # no folder: nothing stays behind on a file system
    reach = passed(f"{store.uri}: written, read, listed and deleted")
    conditional = passed("put-if-absent and compare-and-swap refuse outdated writes")
    try:
        store.put(key, b"seen")
        if store.get(key) != b"seen" or [entry.key for entry in store.list(key)] != [key]:
            lost = f"{store.uri}: an object must be there once it is written, but is not"
            reach = failed(lost, _CONDITIONS)
        if fault := next(_faults(store, key), None):
            law = "two concurrent promotions would both succeed"
            conditional = failed(f"{fault}: {law}", _CONDITIONS)
    except errors.EagleRayError as error:
        reach = failed(str(error), _fix(error, store.uri))
        conditional = skipped("storage does not answer as it must")
    finally:
        with contextlib.suppress(errors.StorageError):
            store.delete(key)
    return [reach.named("storage"), conditional.named("conditional writes")]


def clock(ahead_s: float | None, whose: str) -> Finding:
    """Check by how many seconds a server's clock is ahead of this machine's; None if unknown."""
    if ahead_s is None:
        return skipped(f"{whose} gives no time to compare")
    if abs(ahead_s) < WARN_S:
        return passed(f"{whose} and this machine agree within {WARN_S:g} s")
    seen = f"{whose} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if abs(ahead_s) < REFUSED_S:
        return warned(seen, _SYNC)
    return failed(f"{seen}; signatures are refused from {REFUSED_S:g} s", _SYNC)


def clock_offset(server_time: datetime | None, before: float, after: float) -> float | None:
    """Seconds that a server's clock is ahead; `before` and `after` are our times around its answer.

    A server tells whole seconds, so half of one is added: the error is at most 0.5 s and half of
    the time that the answer took.
    """
    return None if server_time is None else server_time.timestamp() + 0.5 - (before + after) / 2


def parse_date(header: str | None) -> datetime | None:
    """The time of an HTTP `Date` header; None without one."""
    try:
        return parsedate_to_datetime(header or "")
    except ValueError:
        return None


def versions(mine: Versions, theirs: Versions, whose: str, fix: str) -> list[Finding]:
    """Compare Ray and Python `whose` (such as `on the head`) with those of this process.

    EagleRay pins Ray exactly. Python's patch versions read each other's pickles.
    """
    ours, other = (".".join(one.python.split(".")[:2]) for one in (mine, theirs))
    ray = _same(mine.ray, theirs.ray, whose, fix)
    return [ray.named("Ray version"), _same(ours, other, whose, fix).named("Python version")]


def _same(mine: str, theirs: str, whose: str, fix: str) -> Finding:
    if not theirs:
        return warned(f"{mine} here; not known {whose}", fix)
    if mine == theirs:
        return passed(f"{mine}, here and {whose}")
    return failed(f"{mine} here, but {theirs} {whose}", fix)


def _faults(store: Storage, key: str) -> Iterator[str]:
    """Try conditional writes on an object that holds `seen`; yield each that goes wrong."""
    old = store.get_tagged(key)[1]
    if _accepts(lambda: store.put_if_absent(key, b"twice")):
        yield "put-if-absent wrote over an object"
    now = store.compare_and_swap(key, b"swapped", old)
    if _accepts(lambda: store.compare_and_swap(key, b"late", old)):
        yield "compare-and-swap wrote over a change"
    if store.get_tagged(key) != (b"swapped", now):
        yield "a refused write changed the object"
    store.delete(key)
    store.put_if_absent(key, b"anew")


def _accepts(write: Callable[[], object]) -> bool:
    try:
        write()
    except (errors.ObjectExistsError, errors.ObjectChangedError):
        return False
    return True


def _fix(error: errors.EagleRayError, uri: str) -> str:
    place = uri.partition("://")[2]
    keys = "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or: eagleray local up"
    fixes: dict[type[errors.EagleRayError], tuple[str, str]] = {
        errors.BucketNotFoundError: (f"aws s3 mb s3://{place.split('/')[0]}", f"mkdir -p {place}"),
        errors.AccessDeniedError: (keys, f"chmod u+rwx {place}"),
        errors.StorageFullError: ("df -h, and free some room",) * 2,
    }
    absent = ("eagleray local up, or: export AWS_ENDPOINT_URL_S3=https://…",) * 2
    remote, local = fixes.get(type(error), absent)
    return remote if uri.startswith("s3:") else local


def _refused(address: str, status: int) -> Finding:
    laws = {401: "asks for a token", 403: "does not accept this token"}
    if status in laws:
        fix = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=token.txt"
        return failed(f"{address} {laws[status]}", fix)
    law = f"{address}: must be a Ray dashboard, but answers {status} to /api/version"
    return failed(law, "--address http://head:8265")


def _ask(address: str, path: str) -> tuple[int, str | None, dict[str, Any]]:
    """Return the status, the `Date` header, and the JSON object of an answer, {} if it has none.

    Ray's own client has no public way to read a header, or a field that it does not know.
    """
    import requests

    headers = ray_compat.dashboard_headers()
    answer = requests.get(address.rstrip("/") + path, headers=headers, timeout=SILENCE_S)
    body = None
    with contextlib.suppress(ValueError):
        body = answer.json()
    return answer.status_code, answer.headers.get("Date"), body if isinstance(body, dict) else {}
