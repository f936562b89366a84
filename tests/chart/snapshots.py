"""The committed renders of the ci values. Renew them, and read the diff:

python -m tests.chart.snapshots
"""

from pathlib import Path

from tests.chart import chart

FOLDER = Path(__file__).parent / "snapshots"


def path(case: str) -> Path:
    """The committed render of a ci file."""
    return FOLDER / f"{case}.yaml"


if __name__ == "__main__":
    for case in chart.CI:
        path(case).write_text(chart.snapshot(chart.values_of(case)))
