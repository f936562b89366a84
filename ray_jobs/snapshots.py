"""A training's whole state as files of tensors, and back.

    model      weights after the last batch
    best       weights of the best epoch: a file of its own, so that it is sent once
    optimizer  moments, named `{parameter}.{field}`; in its metadata, as JSON, what is no tensor

Nothing is pickled. A training at rest is between two batches (`training.Trainer.epoch`).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from eagleray.storage import streams
from ray_jobs import tensors, training

MODEL, BEST, OPTIMIZER = FILES = ("model", "best", "optimizer")
WHOLE = "whole"
"""The one file of a checkpoint of format 1: names in it start with `model.`, `best.` …"""
PLAIN_TYPES = (int, float, str, list)
"""Types that are saved of a scheduler's state; the configuration gives its functions."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of a training's state in host memory; `owner` goes into each file.

    Files of two owners are never equal, so that an owner may delete its own.
    """

    epoch: int  # whole epochs done
    batch: int  # batches done of the next one
    best_epoch: int
    owner: str
    tensors: Mapping[str, Mapping[str, Tensor]]  # of each file; equal ones are the same object
    plain: str

    def stream(self, file: str) -> streams.Buffers:
        """The bytes of a file."""
        plain = {"state": self.plain} if file == OPTIMIZER else {}
        return tensors.stream(self.tensors[file], {"owner": self.owner} | plain)


def take(trainer: training.Trainer, owner: str, spare: Snapshot | None = None) -> Snapshot | None:
    """Copy the state of a training at rest, but for the best weights, which nobody changes.

    The copy takes the memory of a `spare` one. All workers of a group take part; it is in the
    leading one, and None in the others.
    """
    progress, partial = trainer.progress, trainer.partial
    saved = trainer.optimizer.state_dict()
    moments, plain = _moments(saved["state"])
    at_best = progress.epoch == progress.best_epoch and not partial.batches
    state = {
        "progress": dataclasses.asdict(progress),
        "partial": dataclasses.asdict(partial),
        "groups": saved["param_groups"],
        "plain": plain,
        "schedule": {
            name: value
            for name, value in trainer.schedule.state_dict().items()
            if isinstance(value, PLAIN_TYPES)
        },
        "scaler": trainer.scaler.state_dict(),
    }
    before = spare.tensors if spare else {}
    free = before.get(MODEL) if before.get(MODEL) is not before.get(BEST) else None
    best = trainer.best_weights
    model = best if at_best else _on_host(trainer, trainer.model.state_dict(), free)
    optimizer = _on_host(trainer, moments, before.get(OPTIMIZER))
    if not trainer.strategy.leads:
        return None
    return Snapshot(
        progress.epoch,
        partial.batches,
        progress.best_epoch,
        owner,
        {MODEL: model, BEST: best, OPTIMIZER: optimizer},
        json.dumps(state),
    )


def restore(trainer: training.Trainer, files: Mapping[str, Path]) -> None:
    """Load the files of a snapshot into a new trainer.

    Its configuration is that of the snapshot, but for rates, clipping and weight decay, which stay
    the trainer's own, and for the number of workers.
    """
    found: dict[str, Tensor] = {}
    state: dict[str, Any] = {}
    for name, path in files.items():
        with safe_open(path, "pt") as file:
            prefix = "" if name == WHOLE else f"{name}."
            found |= {prefix + key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            state |= json.loads((file.metadata() or {}).get("state", "{}"))
    held, like = trainer.model.state_dict(), trainer.strategy.like
    saved = _with_prefix(found, "model.")
    trainer.model.load_state_dict({name: like(saved[name], held[name]) for name in held})
    trainer.best_weights = tensors.on_host(_with_prefix(found, "best.").items())
    rates = trainer.schedule.base_lrs
    trainer.optimizer.load_state_dict(
        {"state": _fields(trainer, found, state["plain"]), "param_groups": state["groups"]}
    )
    trainer.schedule.load_state_dict(trainer.schedule.state_dict() | state["schedule"])
    _keep_options(trainer, rates)
    if state.get("scaler"):
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.progress = training.Progress(**state["progress"])
    trainer.partial = training.Partial(**state.get("partial", {}))


def weights(found: Mapping[str, Tensor], owner: str) -> streams.Buffers:
    """The bytes of a file that has no state but its tensors."""
    return tensors.stream(found, {"owner": owner})


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


def _on_host(
    trainer: training.Trainer, named: Mapping[str, Tensor], spare: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Whole tensors in the leading worker's memory, none in the others'; all take part."""
    strategy, ordered = trainer.strategy, sorted(named.items())  # as in the other workers
    whole = ((name, strategy.whole(value)) for name, value in ordered)
    return tensors.on_host((one for one in whole if strategy.leads), spare)


def _fields(
    trainer: training.Trainer, found: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """An optimizer's state by parameter; the opposite of `_moments`."""
    fields: dict[int, dict[str, Any]] = {int(key): value for key, value in plain.items()}
    parameters = list(trainer.model.parameters())
    for name, value in tensors.on_host(_with_prefix(found, "optimizer.").items()).items():
        parameter, field = name.split(".", 1)
        held = parameters[int(parameter)].data
        own = value if value.dim() == 0 else trainer.strategy.like(value, held)
        fields.setdefault(int(parameter), {})[field] = own
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


def _with_prefix(found: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    cut = len(prefix)
    return {name[cut:]: value for name, value in found.items() if name.startswith(prefix)}
