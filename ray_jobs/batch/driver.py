"""The driver of a batch: parts by Ray Data, each finished one on record, then the result.

A killed driver leaves what is finished. The next one reads the records, and gives Ray the parts
that are left alone. While storage is away the driver waits, and goes on in the same way.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import signal
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import pyarrow as pa
import ray
import ray.data
from rich import console

from eagleray import errors, storage
from eagleray.state import batches, keys, runs
from eagleray.state.batches import Part, Place
from ray_jobs import cluster
from ray_jobs.batch import lease, parts
from ray_jobs.batch.limit import Limit
from ray_jobs.batch.parts import Job
from ray_jobs.data import passes

PAUSES_S = (2.0, 5.0, 10.0, 20.0, 40.0)
"""How long the driver waits for storage that is away; anew after each part."""
NO_STORAGE = (
    errors.StorageUnavailableError,
    errors.StorageFullError,
    errors.AccessDeniedError,
)
"""What a person or time may mend; the same command then goes on."""
READERS = 8
"""Files that are read at once where the autoscaler adds nodes; each lies on a disk meanwhile."""
SHOWN_S = 5.0
"""Time between two lines of progress."""
RESUME = "run the same command to go on"


def drive(sent: runs.Run, request: batches.Request) -> None:
    """Run the driver of a batch that was submitted; SIGTERM acts like Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = batches.Plan.read(storage.open(request.output), keys.BATCH_PLAN)
    out = console.Console(highlight=False, markup=False)
    address = os.environ.get("RAY_ADDRESS", "auto")
    job = Job(plan, sent.storage, request.output)
    result = run(job, Limit.parse(request.max_errors), out, address)
    out.print(f"{len(result.parts):,} parts with {result.rows:,} rows are finished")


def run(job: Job, limit: Limit, out: console.Console, address: str | None = None) -> batches.Result:
    """Predict the parts that are not finished, and write the result; return it if it is there.

    While another driver is at work, this one waits; see `lease`.

    Raises:
        ConflictError: the output has predictions of another plan.
        DataError: more rows cannot be predicted than the limit says; a file cannot be read.
        StorageUnavailableError: storage stays away.
        ClusterError: Ray fails.
    """
    batch = batches.Batch(storage.open(job.output))
    batch.begin(job.plan)
    if (result := batch.result()) is not None:
        return _ended(result, limit, out)
    done: dict[Place, Part] = {}
    try:
        with lease.held(batch, out) as result:
            if result is not None:
                return _ended(result, limit, out)
            return _finish(batch, job, done, limit, out, address)
    except KeyboardInterrupt:
        out.print(f"interrupted: {_count(done)} are finished; {RESUME}", soft_wrap=True)
        raise
    except NO_STORAGE as cause:
        away = isinstance(cause, errors.StorageUnavailableError)
        law = f"{RESUME} when storage answers again" if away else RESUME
        raise type(cause)(f"{cause}; {_count(done)} are finished and kept; {law}") from cause


def _ended(result: batches.Result, limit: Limit, out: console.Console) -> batches.Result:
    """The result that is there already; DataError if too many of its rows failed."""
    out.print("these predictions are finished already", soft_wrap=True)
    limit.check(result.rows, result.errors, "", ended=True)
    return result


def left(job: Job, done: Mapping[Place, Part]) -> list[dict[str, Any]]:
    """What Ray is given: each file with parts that are not finished, and those that are."""
    found = []
    for file in range(len(job.plan.inputs)):
        numbers = sorted(number for one, number in done if one == file)
        last = bool(numbers) and done[file, numbers[-1]].last
        if not last or numbers != list(range(len(numbers))):
            found.append({"file": file, "done": json.dumps(numbers)})
    return found


def _finish(
    batch: batches.Batch,
    job: Job,
    done: dict[Place, Part],
    limit: Limit,
    out: console.Console,
    address: str | None,
) -> batches.Result:
    """Predict all parts, and write the result; go on when storage has come back."""
    pauses = iter(PAUSES_S)
    while True:
        before = len(done)
        try:
            done.update(batch.parts())
            if done and not before:
                out.print(f"going on after {_count(done)}", soft_wrap=True)
            _check(done, limit)
            if spans := left(job, done):
                _predict(job, spans, done, limit, out, address)
            _check(done, limit, ended=True)
            return batch.finish(job.plan, done)
        except errors.StorageUnavailableError as cause:
            if len(done) > before:
                pauses = iter(PAUSES_S)
            if (pause := next(pauses, None)) is None:
                raise
            out.print(f"storage is away: {cause}; next try in {pause:g} s", soft_wrap=True)
            time.sleep(pause)


def _predict(
    job: Job,
    spans: list[dict[str, Any]],
    done: dict[Place, Part],
    limit: Limit,
    out: console.Console,
    address: str | None,
) -> None:
    gc.collect()  # the actors of a failed try leave when their handles do, which are in cycles
    shown = time.monotonic()
    with passes.raised("predict", address), contextlib.closing(_written(job, spans)) as written:
        for part in written:
            done[part.place] = part
            _check(done, limit)
            if time.monotonic() - shown > SHOWN_S:
                shown = time.monotonic()
                out.print(_count(done), soft_wrap=True)


def _written(job: Job, spans: list[dict[str, Any]]) -> Generator[Part]:
    """Yield parts as they are finished. Files are read in tasks, and parts predicted in actors."""
    here = cluster.own_node() if parts.is_local(job) else None
    slots = None if cluster.grows() and here is None else _slots(here)
    with passes.quiet(1):  # each part is a block of its own
        made = (
            ray.data.from_items(spans, override_num_blocks=len(spans))
            .map_batches(
                functools.partial(_read, job),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=0,
                compute=ray.data.TaskPoolStrategy(size=min(slots or READERS, len(spans))),
                label_selector=here,
            )
            .map_batches(
                _Writer,
                fn_constructor_args=[job],
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=slots),
                label_selector=here,
            )
        )
        tables: Any = made.iter_batches(batch_size=None, batch_format="pyarrow")
        for table in tables:
            yield from map(Part.model_validate, table.to_pylist())


def _slots(here: Mapping[str, str] | None) -> int:
    """The CPUs of the cluster, or of this machine; UserError if this one is needed and has none."""
    if here is None:
        return max(1, int(sum(one.get("CPU", 0) for one in cluster.joined())))
    own = cluster.nodes()[next(iter(here.values()))].get("CPU", 0)
    if own < 1:
        law = "this machine must be a node with a CPU, or input, output and storage s3://…"
        raise errors.UserError(f"--address: {law}")
    return int(own)


def _read(job: Job, span: pa.Table) -> Iterator[pa.Table]:
    """A task: the parts of a file that are not finished."""
    done = frozenset(json.loads(span["done"][0].as_py()))
    for rows in parts.read(job, span["file"][0].as_py(), done):
        yield rows.pack()


class _Writer:
    """An actor: the model is loaded once.

    It is loaded with the first part: of what `__init__` raises, Ray keeps the text alone.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    @functools.cached_property
    def _writer(self) -> parts.Writer:
        return parts.Writer(self._job)

    def __call__(self, packed: pa.Table) -> pa.Table:
        part = self._writer.write(parts.Rows.unpack(packed))
        return pa.table({name: [value] for name, value in part.model_dump().items()})


def _check(done: Mapping[Place, Part], limit: Limit, *, ended: bool = False) -> None:
    wrong = [one for one in done.values() if one.errors]
    rows, faults = sum(one.rows for one in done.values()), sum(one.errors for one in wrong)
    limit.check(rows, faults, wrong[0].error if wrong else "", ended=ended)


def _count(done: Mapping[Place, Part]) -> str:
    rows, faults = (sum(getattr(one, key) for one in done.values()) for key in ("rows", "errors"))
    bad = f", {faults:,} of them cannot be predicted" if faults else ""
    return f"{len(done):,} parts with {rows:,} rows{bad}"
