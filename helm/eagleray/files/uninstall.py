"""Delete a RayService, and wait until its Ray clusters have ended and cleaned up."""

import sys
import time

from eagleray import errors
from k8s import api

PATIENCE_S = 270
PAUSE_S = 2


def main(service: str) -> None:
    """Meanwhile the release still has what the clean-up of Redis needs: account and keys."""
    here = api.Api()
    try:
        here.delete(api.RAYSERVICES, service)
    except errors.NotFoundError:
        print(f"RayService {service} is gone already")
    deadline = time.monotonic() + PATIENCE_S
    while left := clusters(here, service):
        if time.monotonic() > deadline:
            sys.exit(
                f"RayCluster {', '.join(left)}: must end within {PATIENCE_S} s, but is still there;"
                " look at its Job that cleans Redis up, or go on: helm uninstall --no-hooks"
            )
        time.sleep(PAUSE_S)
    print(f"RayService {service} and its clusters are gone")


def clusters(here: api.Api, service: str) -> list[str]:
    """The Ray clusters that belong to a RayService."""
    owners = [
        (one["metadata"]["name"], owner["kind"], owner["name"])
        for one in here.list(api.RAYCLUSTERS)
        for owner in one["metadata"].get("ownerReferences", ())
    ]
    return [name for name, kind, owner in owners if (kind, owner) == ("RayService", service)]


if __name__ == "__main__":
    main(*sys.argv[1:])
