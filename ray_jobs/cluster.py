"""The Ray cluster that a search runs on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from eagleray import errors
from eagleray.storage import server


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Be connected to a cluster: the one at `address`, or one of this machine's own, ended after.

    Raises:
        UserError: no cluster answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told by its record
    before = dict(os.environ)
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    server.pin()
    try:
        _start(address)
        yield
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def _start(address: str | None) -> None:
    own: dict[str, Any] = {
        "num_cpus": os.cpu_count(),
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    try:
        ray.init(
            address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else own),
        )
    except ConnectionError as cause:
        raise errors.UserError(
            f"--address must be a Ray cluster, but {address}: {cause}"
        ) from cause
