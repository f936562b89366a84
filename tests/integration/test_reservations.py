"""What Ray keeps reserved for drivers and actors that are gone is freed."""

import time

import pytest
import ray
from ray.util import placement_group

from eagleray import ray_compat
from tests import ray_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
OURS = {"name": "late", "namespace": "eagleray-test"}


class Late:
    """Reserves a CPU when its driver has ended, as a run of Ray Train does that outlives it."""

    def reserve(self) -> str:
        made = placement_group([{"CPU": 1}])
        assert made.wait(60)
        return str(made.id.hex())


def test_a_reservation_that_was_made_after_its_driver_ended_is_freed_and_no_other() -> None:
    late = ray.remote(num_cpus=0)(Late)
    with ray_nodes.joining(2) as nodes:
        with ray_compat.connected(nodes.address):
            ray.get(late.options(lifetime="detached", **OURS).remote().__ray_ready__.remote())
        with ray_compat.connected(nodes.address):
            reserved = ray.get(ray.get_actor(**OURS).reserve.remote())
            own = placement_group([{"CPU": 1}])
            assert own.wait(60)
            assert ray_compat.free_reservations() == [reserved]
            assert ray_compat.free_reservations() == []
            assert placement_group([{"CPU": 1}]).wait(60), "the place is free again"


def test_a_reservation_of_an_actor_that_died_is_freed_while_its_driver_goes_on() -> None:
    with ray_nodes.joining(2) as nodes, ray_compat.connected(nodes.address):
        maker = ray.remote(num_cpus=0)(Late).remote()
        reserved = ray.get(maker.reserve.remote())
        own = placement_group([{"CPU": 1}])
        assert own.wait(60)
        assert ray_compat.free_reservations() == [], "who made it is alive"
        ray.kill(maker)
        until = time.monotonic() + 60
        while not (freed := ray_compat.free_reservations()):
            assert time.monotonic() < until
            time.sleep(0.2)
        assert freed == [reserved]
        assert placement_group([{"CPU": 1}]).wait(60), "the place is free again"
