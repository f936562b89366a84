"""The whole state of a training in one safetensors file.

Tensors carry a prefix (`model.`, `best.`, `optimizer.{parameter}.`); the rest is JSON in the file's
metadata. Nothing is pickled.
"""

import dataclasses
import json
import uuid
from collections.abc import Sequence
from typing import Any

from safetensors import torch as safe_torch
from torch import Tensor

from ray_jobs import training

PLAIN_TYPES = (int, float, str, list)
"""Types that are saved of a scheduler's state; the configuration gives its functions."""


def dump(trainer: training.Trainer) -> bytes:
    """The state of a training after its last whole epoch; of a group, in its leading worker.

    All workers of a group call it; it gives nothing in the others.
    """
    optimizer = trainer.optimizer.state_dict()
    tensors = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in trainer.best_weights.items()}
    plain: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{parameter}.{name}"] = value
            else:
                plain.setdefault(str(parameter), {})[name] = value
    state = {
        "progress": dataclasses.asdict(trainer.progress),
        "groups": optimizer["param_groups"],
        "plain": plain,
        "schedule": {
            name: value
            for name, value in trainer.schedule.state_dict().items()
            if isinstance(value, PLAIN_TYPES)
        },
        "scaler": trainer.scaler.state_dict(),
        "id": uuid.uuid4().hex,  # no two blobs are equal: a worker deletes only its own
    }
    strategy, ordered = trainer.strategy, sorted(tensors.items())  # as in the other workers
    whole = ((name, strategy.whole(value.detach())) for name, value in ordered)
    copied = {name: value.cpu().contiguous().clone() for name, value in whole if strategy.leads}
    return safe_torch.save(copied, metadata={"state": json.dumps(state)}) if copied else b""


def restore(trainer: training.Trainer, data: bytes) -> None:
    """Load a state that `dump` gave into a new trainer.

    Its configuration is that of the state, but for rates, clipping and weight decay, which stay the
    trainer's own, and for the number of workers.
    """
    tensors, state, like = safe_torch.load(data), _metadata(data), trainer.strategy.like
    held, parameters = trainer.model.state_dict(), list(trainer.model.parameters())
    saved = _with_prefix(tensors, "model.")
    trainer.model.load_state_dict({name: like(saved[name], held[name]) for name in held})
    trainer.best_weights = _with_prefix(tensors, "best.")
    moments: dict[int, dict[str, Any]] = {int(key): value for key, value in state["plain"].items()}
    for name, value in _with_prefix(tensors, "optimizer.").items():
        parameter, field = name.split(".", 1)
        parted = value if value.dim() == 0 else like(value, parameters[int(parameter)].data)
        moments.setdefault(int(parameter), {})[field] = parted
    rates = trainer.schedule.base_lrs
    trainer.optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
    trainer.schedule.load_state_dict(trainer.schedule.state_dict() | state["schedule"])
    _keep_options(trainer, rates)
    if state.get("scaler"):
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.progress = training.Progress(**state["progress"])


def _keep_options(trainer: training.Trainer, rates: Sequence[Any]) -> None:
    """Give a loaded schedule these base rates: all of its rates are proportional to them."""
    groups = trainer.optimizer.param_groups
    for group, own, loaded in zip(groups, rates, trainer.schedule.base_lrs, strict=True):
        group["weight_decay"] = trainer.options.weight_decay
        for name in ("lr", "initial_lr", "max_lr", "min_lr"):
            if name in group:
                group[name] *= own / loaded  # 1.0 where they are equal: the same bits
    trainer.schedule.base_lrs = list(rates)


def weights(trainer: training.Trainer) -> bytes:
    """The weights of the best epoch as safetensors."""
    return safe_torch.save({k: v.contiguous() for k, v in trainer.best_weights.items()})


def _metadata(data: bytes) -> Any:
    length = int.from_bytes(data[:8], "little")  # the format's header: its length, then JSON
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    cut = len(prefix)
    return {name[cut:]: value for name, value in tensors.items() if name.startswith(prefix)}
