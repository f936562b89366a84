"""`eagleray doctor`: the checks of storage, and what clocks and versions mean.

`eagleray/machine.py` checks this machine, `ray_jobs/doctor.py` a Ray cluster, and
`k8s/diagnose/doctor.py` Kubernetes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from eagleray import errors, storage
from eagleray.findings import Finding, failed, passed, skipped, warned
from eagleray.storage import Storage

WARN_S = 5.0
REFUSED_S = 900.0
"""AWS refuses a signature whose time is 15 minutes from its own (RequestTimeTooSkewed)."""
ATTEMPTS = 2
"""How often storage is asked: a doctor tells what is there now, it does not wait for better."""
_SYNC = "sudo timedatectl set-ntp true"
_HONOUR = (
    "use a server with conditional writes: AWS S3, MinIO, R2, Ceph, SeaweedFS 4.48 or newer; "
    "here: eagleray local up"
)


@dataclass(frozen=True)
class Versions:
    """What runs somewhere; empty where it is not known."""

    ray: str = ""
    python: str = ""


def here() -> Versions:
    """The versions of this process."""
    return Versions(importlib.metadata.version("ray"), platform.python_version())


def of_storage(uri: str) -> list[Finding]:
    """Look at storage: whether it answers, keeps its conditions, and agrees on the time."""
    try:
        store = storage.open(uri, attempts=ATTEMPTS)
    except errors.EagleRayError as error:
        return [failed(str(error), "--storage s3://bucket").named("storage")]
    clock_line = clock(_ahead(store), store.uri).named("storage clock")
    return [*probe(store), clock_line]


def probe(store: Storage) -> list[Finding]:
    """Write, read and list a scratch object, and try both conditional writes on it."""
    key = f"doctor-{secrets.token_hex(8)}"  # no folder: nothing stays behind on a file system
    try:
        try:
            store.put(key, b"seen")
            whole = store.get(key) == b"seen" and [entry.key for entry in store.list(key)] == [key]
            conditional = _conditional(store, key)
        finally:
            with contextlib.suppress(errors.StorageError):
                store.delete(key)
    except errors.EagleRayError as error:
        reach = failed(str(error), _fix(error, store.uri))
        conditional = skipped("storage does not answer as it must")
    else:
        reach = passed(f"{store.uri}: written, read, listed and deleted")
        if not whole:
            lost = f"{store.uri}: an object must be there once it is written, but is not"
            reach = failed(lost, _HONOUR)
    return [reach.named("storage"), conditional.named("conditional writes")]


def clock(ahead_s: float | None, whose: str) -> Finding:
    """Compare a server's clock with ours, by the seconds that it is ahead; None: unknown."""
    if ahead_s is None:
        return skipped(f"{whose} says no time of its own")
    seen = f"{whose} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if abs(ahead_s) >= REFUSED_S:
        return failed(f"{seen}; signatures are refused from {REFUSED_S:g} s", _SYNC)
    if abs(ahead_s) >= WARN_S:
        return warned(seen, _SYNC)
    return passed(f"{whose} and this machine agree within {WARN_S:g} s")


def ahead(said: datetime | None, before: float, after: float) -> float | None:
    """Seconds by which a server that `said` its time is ahead of us, between two of our times.

    What servers say has whole seconds, so half of one is added: the error is at most 0.5 s and
    half of the time that the answer took.
    """
    return None if said is None else said.timestamp() + 0.5 - (before + after) / 2


def dated(header: str | None) -> datetime | None:
    """The time of an HTTP `Date` header."""
    try:
        return parsedate_to_datetime(header or "")
    except ValueError:
        return None


def versions(mine: Versions, theirs: Versions, whose: str, fix: str) -> list[Finding]:
    """Compare Ray and Python there with those of this process; `whose` as in `on the head`.

    EagleRay names its Ray exactly, so a cluster with another one cannot have this EagleRay. Python
    may differ in its patch version: one reads what the other pickled.
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


def _conditional(store: Storage, key: str) -> Finding:
    """Try what must be refused, and what must not, on an object that holds `seen`."""
    old = store.get_tagged(key)[1]
    if not _refused(lambda: store.put_if_absent(key, b"twice"), errors.ObjectExistsError):
        return _ignored("put-if-absent wrote over an object")
    now = store.compare_and_swap(key, b"swapped", old)
    if not _refused(lambda: store.compare_and_swap(key, b"late", old), errors.ObjectChangedError):
        return _ignored("compare-and-swap wrote over a change")
    if store.get_tagged(key) != (b"swapped", now):
        return _ignored("a refused write left its mark")
    store.delete(key)
    store.put_if_absent(key, b"anew")
    return passed("put-if-absent and compare-and-swap refuse who comes late")


def _refused(write: Callable[[], object], refusal: type[errors.StorageError]) -> bool:
    try:
        write()
    except refusal:
        return True
    return False


def _ignored(what: str) -> Finding:
    return failed(f"{what}: two who promote at once would both believe that they did", _HONOUR)


def _ahead(store: Storage) -> float | None:
    before = time.time()
    try:
        said = store.clock()
    except errors.StorageError:
        return None
    return ahead(said, before, time.time())


def _fix(error: errors.EagleRayError, uri: str) -> str:
    """The command that repairs what storage said."""
    remote, place = uri.startswith("s3:"), uri.split("://")[1]
    if isinstance(error, errors.BucketNotFoundError):
        return f"aws s3 mb s3://{place.split('/')[0]}" if remote else f"mkdir -p {place}"
    if isinstance(error, errors.AccessDeniedError):
        keys = "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or: eagleray local up"
        return keys if remote else f"chmod u+rwx {place}"
    if isinstance(error, errors.StorageFullError):
        return "df -h, and free some room"
    return "eagleray local up, or: export AWS_ENDPOINT_URL_S3=https://…"
