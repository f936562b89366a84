"""What `eagleray run` does: from an experiment file to a registered version.

The holder of a search's lease drives it; other drivers watch it in storage, and may take over.
"""

import contextlib
import functools
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rich import console

from eagleray import errors, ray_compat, spec
from eagleray.client import curves, package, screen
from eagleray.state import leases, runs, searches
from ray_jobs import (
    audited,
    bundles,
    cluster,
    ensembles,
    pack_size,
    promotion,
    refit,
    search,
    tuning,
    waiting,
    winner,
)
from ray_jobs.data import extent, prepare
from ray_jobs.report import live, tracking
from ray_jobs.report.outcome import Outcome

POLL_S = 1.0


class _Trained(NamedTuple):
    """Trials that have ended, what wins among them, and its refits if it has them."""

    ranked: bundles.Readable
    best: ensembles.Best
    anew: refit.Refits | None


def drive(submitted: runs.Run) -> None:
    """Run the driver of a submitted run, and store its result; SIGTERM acts like Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="eagleray-run-") as folder:
        outcome = run(
            package.load(submitted, Path(folder)),
            console.Console(highlight=False, markup=False),
            os.environ.get("RAY_ADDRESS", "auto"),
            began=lambda search_id: runs.put(submitted, runs.Begun(search=search_id)),
        )
        page = outcome.page()
        runs.put(submitted, runs.Result(summary=outcome.summary(), page=page))
    print(page)


def run(
    experiment: spec.Experiment,
    out: console.Console,
    address: str | None = None,
    *,
    began: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Search, evaluate and register; a search that has ended returns its result.

    One that ended with fewer trials than are set now resumes. While another driver runs the same
    search, this one watches it, and takes over if the other one dies. `began` is called with the
    search's id before the search starts; for `address` see `cluster.connected`.
    """
    runs.reach(experiment.storage, experiment.name)  # before data are read
    size = extent.measure(experiment)
    with contextlib.ExitStack() as stack:
        if size is not None and size.streamed:  # the first pass takes a while
            out.print(str(size), soft_wrap=True)
            stack.enter_context(cluster.connected(address))
        searched = search.Search(experiment, size).resumed()
        if size is not None and not size.streamed:
            out.print(str(size), soft_wrap=True)
        return _run(searched, out, address, began)


def _run(
    searched: search.Search,
    out: console.Console,
    address: str | None,
    began: Callable[[str], None],
) -> Outcome:
    experiment = searched.experiment
    for note in (*searched.dataset.notes, *prepare.dropped(experiment, searched.dataset)):
        out.print(f"note: {note}", soft_wrap=True)
    if not experiment.names_model and experiment.model.type == spec.EARLIER_MODEL:
        out.print(
            f"note: the file names no model; this search began with {spec.EARLIER_MODEL}, the"
            " default of an earlier release, and goes on with it; a file that names a model is"
            " another search",
            soft_wrap=True,
        )
    if 1 < experiment.trials < experiment.tune.trials:
        out.print(
            f"note: tune.trials: {experiment.tune.trials} asked for, but the space has "
            f"{experiment.trials} configurations: each is tried once",
            soft_wrap=True,
        )
    began(searched.id)
    if (outcome := _finished(searched)) is not None:
        out.print(f"search {searched.id} has already ended; returning its result")
        return outcome
    if not searched.records.trials():
        _print_changes(searched, out)
    watcher = searched.records.watcher()
    while True:
        lease = _take(searched, watcher, out)
        try:
            with lease.held():
                return _finished(searched) or _drive(searched, lease, out, address)
        except errors.LeaseLostError:
            out.print("this search was taken over by another driver", soft_wrap=True)


def _finished(searched: search.Search) -> Outcome | None:
    """The outcome of a search that has a result; None for any other."""
    trials, result = searched.finished() or ([], None)
    return _promote(searched, trials, result) if result else None


def _print_changes(searched: search.Search, out: console.Console) -> None:
    """Say in what a new search differs from those of its name that were interrupted."""
    for before, changes in searched.predecessors().items():
        out.print(
            f"note: search {searched.id} is a new one; {before} is unfinished, and differs in "
            f"{'; '.join(changes) or 'what this release means by the same file'}",
            soft_wrap=True,
        )


def _drive(
    searched: search.Search, lease: leases.Lease, out: console.Console, address: str | None
) -> Outcome:
    searched.write_under(lease)
    finished, known = searched.finished(), searched.records.trials()
    if finished is None:
        audited.stage(searched, out)
    trials = {record.number: record for record in known}
    with tracking.sent(searched, trials, out) as send:
        trained = _train(searched, finished and finished[0], trials, out, address)
        outcome = _register(searched, trained, lease, out)
        send(outcome.result)
    return outcome


def _register(
    searched: search.Search, trained: _Trained, lease: leases.Lease, out: console.Console
) -> Outcome:
    """Evaluate the winner, register and promote it; keep it here if storage is away."""
    best: winner.Winner | None = None
    trials, damaged = trained.ranked
    try:
        best = winner.Winner(
            searched,
            trials,
            trained.best,
            trained.anew,
            damaged=damaged,
            announce=functools.partial(out.print, soft_wrap=True),
        )
        lease.verify()
        searched.records.save_curves(curves.parquet(trials))
        return _promote(searched, trials, best.register())
    except errors.StorageUnavailableError as cause:
        raise errors.StorageUnavailableError(_advice(searched, best, cause)) from cause


def _advice(searched: search.Search, best: winner.Winner | None, cause: Exception) -> str:
    """Keep the winner in the working directory; say where it is, and how to register it."""
    file, name = searched.experiment.path, searched.experiment.name
    said = f"{cause}; all trials have ended and are on record"
    with contextlib.suppress(OSError, errors.StorageError):  # without a place for it
        if best is not None:
            kept = best.keep(Path.cwd() / f"eagleray-{name}-{searched.id}")
            said += f"; the winner is kept in {kept} (eagleray serve {name} --storage {kept})"
    return f"{said}; to register it, run the same command again: eagleray run {file}"


def _train(
    searched: search.Search,
    ranked: list[searches.Record] | None,
    trials: dict[int, searches.Record],
    out: console.Console,
    address: str | None,
) -> _Trained:
    """Train the trials that are left, none where all are `ranked`, and then the refits."""
    found = _trained(searched, ranked) if ranked else None
    if found and (found.anew is None or found.anew.done):
        return found
    with _on_ray(out, address):
        grows = _check_room(searched.experiment.compute, out)
        found = found or _trained(searched, _tune(searched, trials, out, grows=grows))
        return _refit(searched, found, out, grows=grows)


def _trained(searched: search.Search, ranked: list[searches.Record]) -> _Trained:
    """What wins, and its refits if it is to have them."""
    try:
        found = bundles.readable(searched, ranked)
        best, anew = ensembles.best(searched, found.trials), None
        if selected := refit.selected(searched, [trial for trial, _ in best.members]):
            anew = refit.of(searched, selected)
    except errors.StorageUnavailableError as cause:
        raise errors.StorageUnavailableError(_advice(searched, None, cause)) from cause
    return _Trained(found, best, anew)


def _refit(
    searched: search.Search, trained: _Trained, out: console.Console, *, grows: bool
) -> _Trained:
    """Train the refits that are left; if one fails, the winner has none unless the file asks."""
    anew = trained.anew
    if anew is None or anew.done:
        return trained
    numbers = ", ".join(map(str, anew.records))
    who = f"trials {numbers} of the winner are"
    if len(anew.records) == 1:
        mean = len(trained.best.members) > 1
        who = f"trial {numbers} of the winner is" if mean else f"trial {numbers}, the winner, is"
    again = "".join(f"; damaged in storage: {why}" for why in anew.damaged.values())
    out.print(
        f"{who} trained anew on {anew.rows:,} rows of training and validation, {anew.epochs}"
        f" epochs{again}",
        soft_wrap=True,
    )
    try:
        refit.run(anew, waiting.Queue(searched.experiment.compute), grows=grows)
    except errors.SearchError as cause:
        if searched.experiment.tune.refit is True or searched.dataset.folds:
            raise
        out.print(f"note: {cause}; the winner is as the search has trained it", soft_wrap=True)
        return trained._replace(anew=None)
    return trained


def _tune(
    searched: search.Search,
    trials: dict[int, searches.Record],
    out: console.Console,
    *,
    grows: bool,
) -> list[searches.Record]:
    queue = waiting.Queue(searched.experiment.compute)
    with live.watch(searched, trials, out, queue) as ended:
        size = _pack_size(searched, trials, out)
        ranked = tuning.run(searched, trials, ended, queue=queue, size=size, grows=grows)
    if searched.experiment.tune.budget and len(ranked) < searched.experiment.trials:
        out.print(f"the budget ends after {len(ranked)} of {searched.experiment.trials} trials")
    return ranked


@contextlib.contextmanager
def _on_ray(out: console.Console, address: str | None) -> Iterator[None]:
    """Connect to Ray, and say how to go on where the block is interrupted."""
    out.print(f"starting Ray {f'at {address}' if address else 'on this machine'}")
    try:
        with cluster.connected(address):
            ray_compat.free_reservations()
            yield
    except KeyboardInterrupt:
        out.print("interrupted: run the same command to resume")
        raise
    except errors.StorageUnavailableError:
        out.print("storage is away: run the same command to resume when it answers again")
        raise


def _check_room(compute: spec.Compute, out: console.Console) -> bool:
    """Refuse trials that never fit, and return whether the cluster may grow, where that counts.

    Where it may, trials that do not fit are only noted.
    """
    try:
        cluster.fit(cluster.alive(), compute)
    except errors.UserError as misfit:
        if not cluster.grows():
            cluster.fit(cluster.joined(), compute)
            return False
        out.print(f"note: {misfit}; trials wait for more nodes", soft_wrap=True)
        return True
    return compute.grouped and cluster.grows()


def _pack_size(
    searched: search.Search, trials: Mapping[int, searches.Record], out: console.Console
) -> int:
    """Choose the size of packs for the trials that are left, and say why."""
    left = searched.experiment.trials - sum(not one.unfinished for one in trials.values())
    slots = max(1, cluster.Room(searched.experiment.compute)())
    chosen = pack_size.choose(searched, trials=left, slots=slots)
    packs = f"packs of {chosen.size} trials" if chosen.size > 1 else "each trial alone"
    out.print(f"{packs}: {chosen.why}", soft_wrap=True)
    return chosen.size


def _promote(
    searched: search.Search, trials: list[searches.Record], result: searches.Result
) -> Outcome:
    place = promotion.promote(searched.storage, searched.experiment, result.version)
    return Outcome(searched, trials, result, place, searched.records.audit())


def _take(searched: search.Search, watcher: leases.Watcher, out: console.Console) -> leases.Lease:
    """Acquire the lease of a search; show the search while another driver holds it."""
    lease = watcher.acquire()
    if lease is not None:
        return lease
    holder = watcher.document.owner
    out.print(f"{holder} runs this search; Ctrl-C stops only the watching", soft_wrap=True)
    with screen.trials(searched.records, out) as refresh:
        while lease is None:
            time.sleep(POLL_S)
            with contextlib.suppress(errors.StorageUnavailableError):
                lease = watcher.acquire()
                refresh()
    return lease
