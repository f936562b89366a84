"""`make e2e`: what is needed is asked for in one line, before pytest begins."""

import sys
from pathlib import Path

import pytest

from eagleray import errors
from tests.e2e import cluster, settings


def main(arguments: list[str]) -> int:
    """Check, then run the steps in order; 2 when something is missing, else as pytest ends."""
    try:
        cluster.check(settings.read())
    except errors.EagleRayError as needed:
        print(" ".join(str(needed).split()), file=sys.stderr)
        return 2
    return int(pytest.main([str(Path(__file__).parent), "-v", "--tb=short", *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
