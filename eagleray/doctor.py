"""`eagleray doctor`: what a check found, the checks of storage, and the judgement of versions.

Judgements are pure: they are given what was seen. Whoever looks (here at storage, in
`eagleray/machine.py` at this machine, in `ray_jobs/doctor.py` at a Ray cluster, in `k8s/doctor.py`
at Kubernetes) gathers and asks for a judgement.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from eagleray import errors, storage
from eagleray.storage import Storage

State = Literal["pass", "warn", "fail", "skip"]

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
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at.
        state: how it is; `skip` when there was nothing to look at, or no way to.
        said: what was seen.
        mend: the command that mends it, where it is not a pass.
    """

    check: str
    state: State
    said: str
    mend: str = ""


@dataclass(frozen=True)
class Versions:
    """What runs somewhere; empty where it is not known."""

    ray: str = ""
    python: str = ""


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing fails."""
    return all(finding.state != "fail" for finding in findings)


def here() -> Versions:
    """The versions of this process."""
    return Versions(importlib.metadata.version("ray"), platform.python_version())


def of_storage(uri: str) -> list[Finding]:
    """Look at storage: whether it answers, takes turns, and agrees on the time."""
    try:
        store = storage.open(uri, attempts=ATTEMPTS)
    except errors.EagleRayError as error:
        return [Finding("storage", "fail", str(error), "--storage s3://bucket")]
    return [*probe(store), clock("storage clock", _ahead(store), store.uri)]


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
        skipped = Finding("conditional writes", "skip", "storage does not answer as it must")
        return [Finding("storage", "fail", str(error), _remedy(error, store.uri)), skipped]
    reach = Finding("storage", "pass", f"{store.uri}: written, read, listed and deleted")
    if not whole:
        lost = f"{store.uri}: an object must be there once it is written, but is not"
        reach = Finding("storage", "fail", lost, _HONOUR)
    return [reach, conditional]


def clock(check: str, ahead_s: float | None, whose: str) -> Finding:
    """Judge by how many seconds a server's clock is ahead of ours; None: it is ours, or unsaid."""
    if ahead_s is None:
        return Finding(check, "skip", f"{whose} says no time of its own")
    seen = f"{whose} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if abs(ahead_s) >= REFUSED_S:
        return Finding(check, "fail", f"{seen}; signatures are refused from {REFUSED_S:g} s", _SYNC)
    if abs(ahead_s) >= WARN_S:
        return Finding(check, "warn", seen, _SYNC)
    return Finding(check, "pass", f"{whose} and this machine agree within {WARN_S:g} s")


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


def versions(mine: Versions, theirs: Versions, whose: str, mend: str) -> list[Finding]:
    """Judge whether Ray and Python there are those of this process; `whose` as in `on the head`.

    EagleRay names its Ray exactly, so a cluster with another one cannot have this EagleRay.
    """
    python = _minor(mine.python), _minor(theirs.python)
    return [
        _same("Ray version", mine.ray, theirs.ray, whose, mend),
        _same("Python version", *python, whose, mend),
    ]


def _same(check: str, mine: str, theirs: str, whose: str, mend: str) -> Finding:
    if not theirs:
        return Finding(check, "warn", f"{mine} here; not known {whose}", mend)
    if mine == theirs:
        return Finding(check, "pass", f"{mine}, here and {whose}")
    return Finding(check, "fail", f"{mine} here, but {theirs} {whose}", mend)


def _minor(version: str) -> str:
    """`3.11` of `3.11.9`: what decides whether one reads what the other pickled."""
    return ".".join(version.split(".")[:2])


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
    both = "put-if-absent and compare-and-swap refuse who comes late"
    return Finding("conditional writes", "pass", both)


def _refused(write: Callable[[], object], refusal: type[errors.StorageError]) -> bool:
    try:
        write()
    except refusal:
        return True
    return False


def _ignored(what: str) -> Finding:
    said = f"{what}: two who promote at once would both believe that they did"
    return Finding("conditional writes", "fail", said, _HONOUR)


def _ahead(store: Storage) -> float | None:
    before = time.time()
    try:
        said = store.clock()
    except errors.StorageError:
        return None
    return ahead(said, before, time.time())


def _remedy(error: errors.EagleRayError, uri: str) -> str:
    """The command that mends what storage said."""
    place = uri.split("://")[1]
    if isinstance(error, errors.BucketNotFoundError):
        made = f"aws s3 mb s3://{place.split('/')[0]}"
        return made if uri.startswith("s3:") else f"mkdir -p {place}"
    if isinstance(error, errors.AccessDeniedError):
        given = "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or: eagleray local up"
        return given if uri.startswith("s3:") else f"chmod u+rwx {place}"
    if isinstance(error, errors.StorageFullError):
        return "df -h, and free some room"
    return "eagleray local up, or: export AWS_ENDPOINT_URL_S3=https://…"
