"""The checkpoints of a trial: a manifest, and files that it refers to."""

from typing import Any

import pydantic

from eagleray.state import documents
from eagleray.storage import blobs


class Checkpoint(pydantic.BaseModel, frozen=True):
    """A training state whose files are all in storage."""

    epoch: int  # whole epochs done
    batch: int = 0  # batches done of the next epoch
    best_epoch: int = 0  # whose weights are the file `best`
    files: dict[str, blobs.Blob]  # by name, see `ray_jobs.snapshots`
    others: list[dict[str, blobs.Blob]] = []  # of the other workers, if each has saved a part

    @property
    def parts(self) -> list[dict[str, blobs.Blob]]:
        """The files of all workers that have saved it, by rank."""
        return [self.files, *self.others]

    def files_named(self, name: str) -> tuple[blobs.Blob, ...]:
        """The file of this name of every worker; empty in old formats, which have no such file."""
        return tuple(files[name] for files in self.parts if name in files)


def _in_files(state: dict[str, Any]) -> dict[str, Any]:
    """Format 2: several checkpoints, each of several files; before, one of one file."""
    checkpoint = {"epoch": state.get("epoch"), "files": {"whole": state.get("blob")}}
    return documents.without(state, "epoch", "blob") | {"checkpoints": [checkpoint]}


class State(documents.Replaceable, frozen=True):
    """The manifest of a trial's checkpoints, the newest first; written after their files.

    A compare-and-swap replaces it, so a worker that was taken for lost changes nothing.
    """

    KIND, FORMAT = "state", 2
    MIGRATIONS = {1: _in_files}

    values: dict[str, Any]  # the trial's configuration, by dotted key
    checkpoints: list[Checkpoint] = []  # the one before stays, in case that the newest is corrupt
    writer: str = ""  # names the worker's turn at the trial

    @property
    def contents(self) -> set[blobs.Blob]:
        """The contents of all its files."""
        parts = [part for one in self.checkpoints for part in one.parts]
        return {blob for part in parts for blob in part.values()}
