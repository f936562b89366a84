"""The audit as the first stage of a run: made once for each search, printed, kept with it."""

import time

from rich import console

from eagleray import audit, errors
from eagleray.findings import Finding
from eagleray.state import searches
from ray_jobs import search
from ray_jobs.data import prepare

MOST_LINES = 10
"""Maximum number of findings that a run prints."""
_STYLES = {"error": "bold red", "warn": "yellow"}


def examine(searched: search.Search, now: float | None = None) -> searches.Audit:
    """Audit the data of a search; `now` in seconds since 1970, by this machine's clock."""
    clock = time.time() if now is None else now
    table = prepare.audited(searched.experiment, searched.dataset, clock)
    return searches.Audit(rows=len(table), total=table.total, findings=audit.examine(table))


def stage(searched: search.Search, out: console.Console) -> None:
    """Audit a search that has no audit yet, keep it under the lease, and print it in short form.

    Raises:
        DataError: a finding reaches `audit.fail_on`.
    """
    found = searched.records.audit()
    if found is None:
        found = examine(searched)
        searched.records.save(found)
    _print(searched, found, out)
    fail_on = searched.experiment.audit.fail_on
    if reached := audit.reached(found.findings, fail_on):
        raise errors.DataError(*(f"audit.fail_on: {fail_on}, and {line(one)}" for one in reached))


def line(one: Finding) -> str:
    """A finding without its evidence."""
    return f"{one.check}: {one.message}" + (f"; fix: {one.fix}" if one.fix else "")


def _print(searched: search.Search, found: searches.Audit, out: console.Console) -> None:
    told = [one for one in found.findings if one.severity in _STYLES]
    file = searched.experiment.path.name
    out.print(f"audit: {found.sentence()} (eagleray audit {file})", soft_wrap=True)
    for one in told[:MOST_LINES]:
        text = f"  {one.severity}: {line(one)}"
        out.print(text, soft_wrap=True, style=_STYLES[one.severity], markup=False, highlight=False)
    if len(told) > MOST_LINES:
        out.print(f"  and {len(told) - MOST_LINES} more", soft_wrap=True)
