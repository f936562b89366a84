"""A trial as Ray Tune runs it: an actor that is reused for one configuration after another.

Starting a process takes many times as long as a short training, so the actor, and the group of
workers of a trial that has one, are reused (`reset_config`), and the object store holds the encoded
data once, shared without copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from ray import tune

from ray_jobs import session, strategies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eagleray.state import searches
    from ray_jobs import group


class Trial(tune.Trainable):
    """Trains in this process, or in a group of workers; `config` is from `searcher.Searcher`."""

    def setup(self, config: dict[str, Any], *, job: session.Job) -> None:  # type: ignore[override]
        # `tune.with_parameters` passes the job
        compute = job.experiment.compute
        if compute.grouped:
            from ray_jobs import group  # with Ray Train, which others need not import

            self._trains: group.Group | session.Session = group.Group(job)
        else:
            device = "cuda" if compute.gpus and torch.cuda.is_available() else "cpu"
            strategy = strategies.OneProcess(device, compute.precision)
            self._trains = session.Session(job, strategy)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trains.begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next rung, the end, or the next report, whichever comes first."""
        return self._trains.step()

    def drop(self, numbers: Sequence[int]) -> None:
        """End members that the scheduler has stopped."""
        self._trains.drop(numbers)

    def clone(self, number: int, values: dict[str, Any], checkpoint: searches.Checkpoint) -> None:
        """Let a member go on from another's checkpoint, under values of its own."""
        self._trains.clone(number, values, checkpoint)

    def cleanup(self) -> None:
        self._trains.close()
