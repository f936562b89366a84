"""A picture of a simulation: load, replicas, and latency over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eagleray import errors
from serving.simulation.loads import Times
from serving.simulation.replicas import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GREY, BLUE, ORANGE, GREEN = "#333333", "#8a8a8a", "#0072b2", "#d55e00", "#007a5a"
"""Of Okabe and Ito's palette, the green darkened for contrast."""
WINDOWS = 180  # most windows whose percentiles are drawn


def draw(outcome: Outcome, objective_ms: float | None, path: Path) -> None:
    """Write the picture, as PNG, SVG or PDF by the name of the file.

    Raises:
        UserError: the file cannot be written, or its name has another ending.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), dpi=120, layout="constrained")
    load, replicas, latency = figure.subplots(3, 1, sharex=True)
    window = max(1.0, np.ceil(outcome.moments[-1].at / WINDOWS))
    _load(load, outcome.sent, window)
    _replicas(replicas, outcome)
    _latency(latency, outcome, objective_ms, window)
    for axes in (load, replicas, latency):
        _style(axes)
    latency.set_xlabel("minutes", color=INK)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as cause:
        law = f"{path}: must be a file that can be written, ending in .png, .svg or .pdf"
        raise errors.UserError(f"{law}: {cause}") from cause


def _load(axes: Axes, sent: Times, window: float) -> None:
    counts = np.bincount((sent // window).astype(int)) / window if len(sent) else np.zeros(1)
    axes.step(np.arange(len(counts)) * window / 60, counts, where="post", color=BLUE)
    _title(axes, "Requests per second")


def _replicas(axes: Axes, outcome: Outcome) -> None:
    from matplotlib.ticker import MaxNLocator

    at = [moment.at / 60 for moment in outcome.moments]
    wanted = [moment.wanted for moment in outcome.moments]
    running = [moment.running for moment in outcome.moments]
    axes.step(at, wanted, where="post", color=ORANGE, linewidth=1, linestyle="--")
    axes.fill_between(at, running, step="post", color=BLUE, alpha=0.25, linewidth=0)
    axes.step(at, running, where="post", color=BLUE)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _title(axes, "Replicas: running (filled) and wanted (dashed)")


def _latency(axes: Axes, outcome: Outcome, objective_ms: float | None, window: float) -> None:
    for share, color in ((0.95, ORANGE), (0.5, BLUE)):
        at, seconds = outcome.percentiles(share, window)
        ms = np.where(np.isfinite(seconds), 1000 * seconds, np.nan)
        axes.plot(at / 60, ms, color=color, linewidth=1.2)
        _label(axes, at[-1] / 60, ms, f"p{100 * share:.0f}", color)
    if objective_ms:
        axes.axhline(objective_ms, color=GREEN, linewidth=1, linestyle=":")
        axes.annotate(
            f"objective {objective_ms:g} ms",
            (0, objective_ms),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            color=GREEN,
            fontsize=9,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    _title(axes, "Latency in milliseconds, by the time of the request")


def _label(axes: Axes, x: float, values: Times, text: str, color: str) -> None:
    finite = values[np.isfinite(values)]
    if len(finite):
        axes.annotate(
            text,
            (x, finite[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=9,
        )


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, color=INK)


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e3e3e3", linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
