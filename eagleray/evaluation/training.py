"""What the curves and layers of a winner say about its training: cause, and the key that mends it.

Legend: B rows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eagleray import code, engines, messages, spec
from eagleray.findings import Finding, passed, warned
from eagleray.learn import models, schema
from eagleray.state.watches import Row

EXPLODED = 100.0  # norm of all gradients, where losses are those of standardised targets or classes
GROWN = 100.0  # the same, divided by that of the first epoch
VANISHED = 1e-3  # gradient of a layer by its weights, divided by that of the last layer
LEAST_LAYERS = 3  # fewer cannot lose a gradient on the way
DEAD = 0.75  # part of a layer's units
SPIKE = 3.0  # largest loss of a batch, divided by that of the epochs before
SPIKE_EPOCHS = 3  # how many
WIDE = 20.0  # size that 95 of 100 values do not exceed; of a standardised column it is 2
DROPOUT, DECAY = 0.3, 0.01  # against over-fitting, where there is less
HIDDEN = (256, 128)  # widths against under-fitting
WITH_HIDDEN = (models.Mlp, models.Text, models.Image)


@dataclass(frozen=True)
class Training:
    """How a model was trained.

    Attributes:
        configuration: of the trial.
        model: the section of the experiment file; another than the trial's under `auto`.
        layers: what was watched.
    """

    configuration: spec.Configuration
    model: models.Options
    layers: Sequence[Row]

    def setting(self, section: str, key: str, value: object) -> str:
        """A line of the file; empty where its model takes no such key."""
        searched = self.model.type != self.configuration.model.type
        if key in self.model.without or (section == "model" and searched):
            return ""
        named = {"type": self.model.type} if section == "model" else {}
        return messages.setting({section: {**named, key: value}})

    def lower_rate(self) -> str:
        return self.setting("train", "lr", _round(self.configuration.train.lr / 10))


def examine(
    of: Training, history: Sequence[Mapping[str, float]], columns: schema.Columns
) -> list[Finding]:
    """Findings on a training, with `columns` of its rows; one that passes if nothing is wrong."""
    found = [*_unscaled(of, columns), *_spikes(of, history)]
    epochs = _by_epoch(of.layers)
    if epochs:
        found += [*_dead(of, epochs), *_exploding(of, epochs), *_vanishing(of, epochs)]
        if not found:
            layers = len(next(iter(epochs.values())))
            found.append(
                passed(
                    f"Gradients, weights and units of {layers} layers were watched in"
                    f" {len(epochs)} epochs: nothing unusual.",
                    check="layers",
                )
            )
    return found


def mended(of: Training, sign: str) -> str:
    """The line of the file that helps against over- or under-fitting."""
    model, train = of.configuration.model, of.configuration.train
    if sign == "under-fit":
        return of.setting("train", "epochs", 2 * train.epochs)
    if sign == "too weak":
        small = isinstance(model, WITH_HIDDEN) and sum(model.hidden) < sum(HIDDEN)
        return of.setting("model", "hidden", list(HIDDEN)) if small else ""
    if isinstance(model, models.Boosting):
        return of.setting("model", "leaves", max(2, model.leaves // 2))
    if isinstance(model, (*WITH_HIDDEN, models.TabM)) and model.dropout < DROPOUT:
        return of.setting("model", "dropout", DROPOUT)
    return of.setting("train", "weight_decay", max(DECAY, _round(10 * train.weight_decay)))


def _unscaled(of: Training, columns: schema.Columns) -> Iterator[Finding]:
    model = of.configuration.model
    if models.engine(model) != engines.TORCH or model.rescales:
        return
    for name, options in of.configuration.features.items():
        if (
            getattr(options, "scale", None) != "none"
            or name not in columns
            or columns[name].dtype.kind not in "fiu"
        ):
            continue
        value_B = columns[name].astype(float)
        size_B = np.abs(value_B[np.isfinite(value_B)])
        wide = float(np.quantile(size_B, 0.95)) if len(size_B) else 0.0
        if wide > WIDE:
            yield warned(
                f"Unscaled feature: {name} enters the network as it is, with values up to"
                f" {wide:.3g}, where other numbers stay within about 2; its weights take most of"
                " each gradient.",
                check="unscaled feature",
                column=name,
                fix=messages.setting({"features": {name: {"scale": "standard"}}}),
                numbers={"p95": wide},
            )


def _spikes(of: Training, history: Sequence[Mapping[str, float]]) -> Iterator[Finding]:
    peaks = [(one.get("peak_loss", math.nan), one.get("train_loss", math.nan)) for one in history]
    start = peaks[0][1] if peaks else math.nan
    found = {
        place + 1: peak / before
        for place, (peak, _) in enumerate(peaks)
        if place
        and (before := max(one for one, _ in peaks[max(0, place - SPIKE_EPOCHS) : place])) > 0
        and peak > SPIKE * before
        and peak > start
    }
    if found:
        epoch, times = max(found.items(), key=lambda one: one[1])
        yield warned(
            f"Loss spikes: in epoch {epoch} the loss of a batch was {times:.3g} times the largest"
            f" of the epochs before (in {len(found)} of {len(history)} epochs it jumped): steps are"
            " too large for some batches.",
            check="loss spikes",
            fix=_clipped(of) or of.lower_rate(),
            numbers={"epoch": epoch, "times": times},
        )


def _dead(of: Training, epochs: Mapping[int, Sequence[Row]]) -> Iterator[Finding]:
    rows = [one for one in epochs[max(epochs)] if one.dead is not None]
    worst = max(rows, key=lambda one: one.dead or 0.0, default=None)
    if worst is None or (worst.dead or 0.0) < DEAD:
        return
    other = isinstance(of.configuration.model, models.Mlp)  # has other activations
    fix = of.setting("model", "activation", "gelu") if other else of.lower_rate()
    yield warned(
        f"Dead ReLU: {messages.percent(worst.dead or 0.0)} of the units behind {worst.layer} give"
        " zero for every row, and no gradient passes them; a learning rate that is too high, or a"
        " large negative bias, does that.",
        check="dead ReLU",
        fix=fix,
        numbers={"dead": worst.dead or 0.0, "epoch": worst.epoch},
    )


def _exploding(of: Training, epochs: Mapping[int, Sequence[Row]]) -> Iterator[Finding]:
    if of.configuration.train.clip_norm is not None:
        return
    norms = {epoch: _norm(one.gradient for one in rows) for epoch, rows in epochs.items()}
    epoch, largest = max(norms.items(), key=lambda one: _size(one[1]))
    first = norms[min(norms)]
    own = code.is_name(of.configuration.train.loss)  # of which nobody knows the scale
    finite, high = math.isfinite(largest), largest > EXPLODED and not own
    if finite and not high and largest <= GROWN * first:
        return
    worst = max(epochs[epoch], key=lambda one: _size(one.gradient))
    yield warned(
        f"Exploding gradient: its norm was {largest:.3g} in epoch {epoch} ({first:.3g} in the first"
        f" one), most of it in {worst.layer}: such steps throw the weights far off.",
        check="exploding gradient",
        fix=_clipped(of) or of.lower_rate(),
        numbers=_finite({"norm": largest, "first": first, "epoch": epoch}),
    )


def _vanishing(of: Training, epochs: Mapping[int, Sequence[Row]]) -> Iterator[Finding]:
    ratios: dict[str, list[float]] = {}
    for rows in epochs.values():
        known = [one for one in rows if one.gradient > 0 and one.weight > 0]
        if len(known) < LEAST_LAYERS or not all(math.isfinite(one.gradient) for one in known):
            continue
        last = known[-1].gradient / known[-1].weight
        for one in known[: len(known) // 2]:
            ratios.setdefault(one.layer, []).append(one.gradient / one.weight / last)
    medians = {layer: statistics.median(found) for layer, found in ratios.items()}
    layer, least = min(medians.items(), key=lambda one: one[1], default=("", math.inf))
    if least < VANISHED:
        yield warned(
            f"Vanishing gradient: that of {layer} is {least:.2g} times that of the last layer, each"
            " by its weights: the first layers hardly learn. Fewer layers, batch norm, or another"
            " activation help.",
            check="vanishing gradient",
            fix=_passable(of),
            numbers={"ratio": least},
        )


def _passable(of: Training) -> str:
    """What lets gradients through: batch norm, or fewer layers."""
    model = of.configuration.model
    if isinstance(model, models.Mlp) and not model.batch_norm:
        return of.setting("model", "batch_norm", True)
    if isinstance(model, WITH_HIDDEN) and len(model.hidden) > 2:
        return of.setting("model", "hidden", list(model.hidden[:2]))
    return ""


def _clipped(of: Training) -> str:
    if of.configuration.train.clip_norm is not None:
        return ""
    return of.setting("train", "clip_norm", 1.0)


def _by_epoch(layers: Sequence[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in layers:
        found.setdefault(row.epoch, []).append(row)
    return found


def _norm(parts: Iterator[float]) -> float:
    return math.sqrt(sum(one * one for one in parts))


def _size(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _finite(numbers: dict[str, float]) -> dict[str, float]:
    return {name: one for name, one in numbers.items() if math.isfinite(one)}


def _round(value: float) -> float:
    return float(f"{value:.2g}")
