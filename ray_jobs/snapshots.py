"""A training's whole state as files of tensors, and back.

    model      weights after the last batch
    best       weights of the best epoch: a file of its own, so that it is sent once
    optimizer  moments, named `{parameter}.{field}`, and averages of weights, `average.{parameter}`;
               in its metadata, as JSON, what is no tensor

Of a group under `fsdp`, each worker has such files with what it holds: its rows of the sharded
tensors, and all of the others. Any number of workers reads them.

Nothing is pickled. A training at rest is between two batches (`training.Trainer.epoch`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from eagleray.storage import streams
from ray_jobs import learner, strategies, tensors

if TYPE_CHECKING:
    from ray_jobs import training

MODEL, BEST, OPTIMIZER = FILES = ("model", "best", "optimizer")
WHOLE = "whole"
"""The one file of a checkpoint of format 1: names in it start with `model.`, `best.` …"""
AVERAGE = "average"


@dataclass(frozen=True)
class Snapshot:
    """A copy of a training's state in host memory; `owner` goes into each file.

    Files of two owners are never equal, so that an owner may delete its own.
    """

    epoch: int  # whole epochs done
    batch: int  # batches done of the next one
    best_epoch: int
    owner: str
    files: Mapping[str, Mapping[str, Tensor]]  # their tensors; equal ones are the same object
    rows: Mapping[str, Mapping[str, tensors.RowRange]]  # of what is sharded
    state: str  # what is no tensor, as JSON

    @property
    def spare(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Tensors whose memory the next snapshot may reuse: not the best weights, still in use."""
        best = self.files[BEST]
        return {name: held for name, held in self.files.items() if held is not best}

    def stream(self, file: str) -> streams.Buffers:
        """The bytes of a file."""
        state = {"state": self.state} if file == OPTIMIZER else {}
        return tensors.stream(self.files[file], {"owner": self.owner} | state, self.rows[file])


Spare = Mapping[str, Mapping[str, Tensor]]
"""Tensors of files that nobody needs any more, but for their memory."""


def take(trainer: training.Trainer, owner: str, spare: Spare | None = None) -> Snapshot | None:
    """Copy the state of a training at rest, but for the best weights, which nobody changes.

    The copy takes the memory that an earlier one has to spare. None if another worker saves what
    this one holds.
    """
    if not trainer.strategy.saves:
        return None
    progress, partial, averages = trainer.progress, trainer.partial, trainer.averages
    saved = trainer.optimizer.state_dict()
    moments, plain = _moments(saved["state"])
    at_best = progress.epoch == progress.best_epoch and not partial.batches and averages is None
    state = {
        "progress": vars(progress),
        "partial": vars(partial),
        "groups": saved["param_groups"],
        "plain": plain,
        "schedule": trainer.schedule.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "averaged": averages.steps if averages else 0,
    }
    free = spare or {}
    best, weights = trainer.best_weights, trainer.model.state_dict()
    model = best if at_best else _on_host(trainer, weights, free.get(MODEL))
    rows = {MODEL: _rows(trainer, weights), OPTIMIZER: _rows(trainer, moments)}
    rows[OPTIMIZER] |= _rows(trainer, _averaged(trainer))
    moments |= dict(zip(_averaged(trainer), averages.values if averages else [], strict=True))
    return Snapshot(
        progress.epoch,
        partial.batches,
        progress.best_epoch,
        owner,
        {MODEL: model, BEST: best, OPTIMIZER: _on_host(trainer, moments, free.get(OPTIMIZER))},
        rows | {BEST: rows[MODEL]},
        json.dumps(state),
    )


def best_weights(trainer: training.Trainer, owner: str) -> streams.Buffers:
    """The file `best` as a stream: the same bytes as in any snapshot with this best epoch."""
    rows = _rows(trainer, trainer.model.state_dict())
    return tensors.stream(trainer.best_weights, {"owner": owner}, rows)


def needed_parts(trainer: training.Trainer, count: int) -> list[int]:
    """Which of `count` saved parts hold rows of this worker."""
    strategy = trainer.strategy
    if strategy.parts == 1:
        return list(range(count))
    held = _rows(trainer, trainer.model.state_dict()).values()
    return sorted(
        {
            part
            for own in held
            for part, rows in enumerate(strategies.shard_rows(own.total, count))
            if max(own.start, rows.start) < min(own.stop, rows.stop)
        }
    ) or [min(strategy.rank, count - 1)]


def restore(trainer: training.Trainer, parts: Sequence[Mapping[str, Path]]) -> None:
    """Load the files of a snapshot into a new trainer; `parts` are those of `needed_parts`.

    Its configuration is that of the snapshot, but for rates, clipping and weight decay, which stay
    the trainer's own, and for the number of workers.

    Raises:
        CorruptObjectError: the parts do not hold all that this worker is to hold.
    """
    model, best, moments = (opened(parts, name) for name in FILES)
    held, strategy = trainer.model.state_dict(), trainer.strategy
    rows = {name: strategy.local_rows(value) for name, value in held.items()}
    trainer.model.load_state_dict(
        {name: strategy.from_local(model.read(name, rows[name]), held[name]) for name in held}
    )
    if strategy.saves:
        trainer.best_weights = tensors.on_host((name, best.read(name, rows[name])) for name in held)
    state, rates = json.loads(moments.metadata["state"]), trainer.schedule.base_lrs
    trainer.optimizer.load_state_dict(
        {"state": _fields(trainer, moments, state["plain"]), "param_groups": state["groups"]}
    )
    trainer.schedule.load_state_dict(state["schedule"])
    _keep_options(trainer, rates)
    if trainer.averages is not None:
        trainer.averages.steps = state["averaged"]
        for value, (name, like) in zip(
            trainer.averages.values, _averaged(trainer).items(), strict=True
        ):
            value.copy_(moments.read(name, strategy.local_rows(like)))
    if state.get("scaler"):
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.progress = learner.Progress(**state["progress"])
    trainer.partial = learner.Partial(**state.get("partial", {}))


def _moments(state: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an optimizer's state by `{parameter}.{field}`, and the rest by parameter."""
    found: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for parameter, fields in state.items():
        for name, value in fields.items():
            if isinstance(value, Tensor):
                found[f"{parameter}.{name}"] = value.detach()
            else:
                plain.setdefault(str(parameter), {})[name] = value
    return found, plain


def _averaged(trainer: training.Trainer) -> dict[str, Tensor]:
    """The parameters by the names of their averages; none without averages."""
    weights = trainer.parameters if trainer.averages is not None else []
    return {f"{AVERAGE}.{place}": one.data for place, one in enumerate(weights)}


def _on_host(
    trainer: training.Trainer, named: Mapping[str, Tensor], spare: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """What this worker holds of these tensors, copied."""
    local = trainer.strategy.to_local
    return tensors.on_host(((name, local(value)) for name, value in named.items()), spare)


def _rows(trainer: training.Trainer, named: Mapping[str, Tensor]) -> dict[str, tensors.RowRange]:
    """The rows that this worker holds of those that are sharded."""
    found = {name: trainer.strategy.local_rows(value) for name, value in named.items()}
    return {name: rows for name, rows in found.items() if rows is not None}


def opened(parts: Sequence[Mapping[str, Path]], name: str) -> tensors.Reader:
    """The tensors of one file of all parts."""
    if WHOLE in parts[0]:
        return tensors.Reader([parts[0][WHOLE]], f"{name}.")
    return tensors.Reader([part[name] for part in parts])


def _fields(
    trainer: training.Trainer, moments: tensors.Reader, plain: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """An optimizer's state by parameter; the opposite of `_moments`."""
    fields: dict[int, dict[str, Any]] = {int(key): value for key, value in plain.items()}
    parameters, strategy = list(trainer.model.parameters()), trainer.strategy
    for name in moments.names():
        parameter, field = name.split(".", 1)
        if parameter == AVERAGE:
            continue
        held = parameters[int(parameter)].data
        own = moments.read(name, strategy.local_rows(held)).clone()  # it may be mapped
        like = strategy.from_local(own, held) if own.dim() else own
        fields.setdefault(int(parameter), {})[field] = like
    return fields


def _keep_options(trainer: training.Trainer, rates: Sequence[Any]) -> None:
    """Give a loaded schedule these base rates: all of its rates are proportional to them."""
    groups = trainer.optimizer.param_groups
    for group, own, loaded in zip(groups, rates, trainer.schedule.base_lrs, strict=True):
        group["weight_decay"] = trainer.options.weight_decay
        for name in ("lr", "initial_lr", "max_lr", "min_lr"):
            if name in group:
                group[name] *= own / loaded  # 1.0 where they are equal: the same bits
    trainer.schedule.base_lrs = list(rates)
