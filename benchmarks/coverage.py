"""How many true values the intervals of quantiles hold: as a model gives them, and calibrated.

`python -m benchmarks.coverage` simulates models that are right, too narrow or too wide, on even and
on skewed noise. Ours moves each quantile by itself (`eagleray.evaluation.calibrations`); beside it
stands the symmetric form of Romano, Patterson and Candès (2019, theorem 1), which moves both ends
of an interval by one number.
"""

import argparse
from collections.abc import Callable

import numpy as np

from eagleray.evaluation import calibrations
from eagleray.learn import schema, tasks

LEVELS = (0.05, 0.5, 0.95)
TARGET = schema.Target(name="y", task="quantiles", quantiles=LEVELS)
SCALE = {"mean": 0.0, "deviation": 1.0}
NOISE: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], tuple[float, ...]]] = {
    "even": (lambda random, rows: random.normal(size=rows), (-1.6449, 0.0, 1.6449)),
    "skewed": (lambda random, rows: random.exponential(size=rows), (0.0513, 0.6931, 2.9957)),
}
"""Noise, and its true quantiles."""
STRETCH = {"right": 1.0, "half as wide": 0.5, "twice as wide": 2.0}


def draw(
    random: np.random.Generator, noise: str, stretch: float, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """The truth (B), and a model's quantiles (B, C) around the right median."""
    make, quantile_C = NOISE[noise]
    x_B = random.uniform(0, 4, rows)
    spread_B, middle = 0.2 + x_B / 2, quantile_C[1]
    said_C = middle + stretch * (np.array(quantile_C) - middle)
    return 2 * x_B + spread_B * make(random, rows), 2 * x_B[:, None] + spread_B[:, None] * said_C


def each_side(
    known: tuple[np.ndarray, np.ndarray], quantile_BC: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ends (B) of the interval, calibrated as a winner's are."""
    found = calibrations.fit("conformal", TARGET, *known)
    moved_BC = tasks.of(found.target).activate(quantile_BC, SCALE)
    return moved_BC[:, 0], moved_BC[:, -1]


def symmetric(
    known: tuple[np.ndarray, np.ndarray], quantile_BC: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same, both moved by one number."""
    truth_B, said_BC = known
    outside_B = np.maximum(said_BC[:, 0] - truth_B, truth_B - said_BC[:, -1])
    rank = int(np.ceil((len(truth_B) + 1) * (LEVELS[-1] - LEVELS[0])))
    by = np.sort(outside_B)[min(rank, len(truth_B)) - 1]
    return quantile_BC[:, 0] - by, quantile_BC[:, -1] + by


def main() -> None:
    """Print a line of the table for each noise and model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300, help="of the validation part")
    parser.add_argument("--draws", type=int, default=400)
    asked, random = parser.parse_args(), np.random.default_rng(0)
    print("| noise | model | as given | each side | symmetric | below, above (each side) | "
          "below, above (symmetric) |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for noise in NOISE:
        for name, stretch in STRETCH.items():
            found = []
            for _ in range(asked.draws):
                known = draw(random, noise, stretch, asked.rows)
                truth_B, said_BC = draw(random, noise, stretch, 500)
                ends = (
                    (said_BC[:, 0], said_BC[:, -1]),
                    each_side(known, said_BC),
                    symmetric(known, said_BC),
                )
                found.append(
                    [
                        (
                            (truth_B < low_B).mean(),
                            (truth_B > high_B).mean(),
                            (high_B - low_B).mean(),
                        )
                        for low_B, high_B in ends
                    ]
                )
            plain, ours, other = np.mean(found, axis=0).tolist()
            held = (f"{1 - one[0] - one[1]:.3f}, {one[2]:.2f} wide" for one in (plain, ours, other))
            missed = (f"{one[0]:.3f}, {one[1]:.3f}" for one in (ours, other))
            print(f"| {noise} | {name} | {' | '.join([*held, *missed])} |")


if __name__ == "__main__":
    main()
