"""One Ray cluster for all files of this folder: a cluster starts eight processes of its own."""

from collections.abc import Iterator

import pytest

from eagleray import ray_compat


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """A cluster of one CPU, which this process is connected to while tests of this folder run.

    One trial runs at a time, in one worker: starting a worker takes longer than these trainings.
    """
    with ray_compat.connected(None, ray_compat.DEVICES, num_cpus=1):
        yield
