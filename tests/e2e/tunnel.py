"""A port of a pod, on this machine's loopback: by `kubectl port-forward`, or without kubectl."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward

from eagleray import errors
from tests.e2e import cluster

LIMIT_S = 60.0
PIECE = 65536


def command(program: str, namespace: str, target: str, port: int, here: int) -> list[str]:
    """What opens the tunnel.

    Args:
        program: kubectl.
        namespace: of the target.
        target: `svc/name` or `pod/name`.
        port: of the target.
        here: port on this machine.
    """
    words = [program, "port-forward", "--namespace", namespace, "--address", "127.0.0.1"]
    return [*words, target, f"{here}:{port}"]


@contextlib.contextmanager
def opened(namespace: str, pod: str, port: int) -> Iterator[str]:
    """`host:port` that leads to a pod's port for the time of the block."""
    program = shutil.which("kubectl")
    way = _by_kubectl(program, namespace, pod, port) if program else _by_us(namespace, pod, port)
    with way as here:
        yield f"127.0.0.1:{here}"


@contextlib.contextmanager
def _by_kubectl(program: str, namespace: str, pod: str, port: int) -> Iterator[int]:
    """kubectl gives up when a connection breaks in the pod: it is started again until we end."""
    here, stop = _free(), threading.Event()
    words = command(program, namespace, f"pod/{pod}", port, here)
    with tempfile.NamedTemporaryFile("w") as log:
        keeper = threading.Thread(target=_keep, args=(words, log, stop))
        keeper.start()
        try:
            _wait(here, lambda: _said(Path(log.name)), " ".join(words))
            yield here
        finally:
            stop.set()
            keeper.join()


def _keep(words: list[str], log: IO[str], stop: threading.Event) -> None:
    while not stop.is_set():
        running = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        while running.poll() is None and not stop.wait(0.2):
            pass
        running.terminate()
        running.wait()
        stop.wait(0.5)


@contextlib.contextmanager
def _by_us(namespace: str, pod: str, port: int) -> Iterator[int]:
    """Each connection to our port becomes a stream of the Kubernetes API."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    ours = listening.accept()[0]
                    ours.settimeout(None)
                    arguments = (ours, namespace, pod, port)
                    threading.Thread(target=_lead, args=arguments, daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            stop.set()
            thread.join()


def _lead(ours: socket.socket, namespace: str, pod: str, port: int) -> None:
    """Carry bytes both ways until one side has ended."""
    ask = cluster.core().connect_get_namespaced_pod_portforward
    try:
        theirs = portforward(ask, pod, namespace, ports=str(port)).socket(port)
    except (OSError, ApiException):
        ours.close()
        return
    back = threading.Thread(target=_carry, args=(theirs, ours), daemon=True)
    back.start()
    _carry(ours, theirs)
    back.join()
    ours.close()
    theirs.close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _wait(here: int, said: Callable[[], str], what: str) -> None:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", here), 2):
            return
        time.sleep(0.2)
    raise errors.ClusterError(f"{what}: no port within {LIMIT_S:g} s, but: {said()}")


def _said(log: Path) -> str:
    return " ".join(log.read_text().split())[-500:] or "nothing"


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
