"""The Ray cluster that a search runs on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from eagleray import ray_compat


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connect to the cluster at `address`, or to one of this machine's own, ended after the block.

    A process that is connected already stays as it is.

    Raises:
        UserError: no cluster answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failure is told by its record
    address = address or os.environ.get("RAY_ADDRESS")
    with ray_compat.connected(address, ray_compat.DEVICES, num_cpus=os.cpu_count()):
        yield
