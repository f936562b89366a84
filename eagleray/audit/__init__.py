"""The audit of data before compute is spent: what is wrong with a table, and what mends it.

table      the table, and what several checks ask of it      values    one column's values
estimates  models that are made fast, as evidence            repeats   rows that repeat others
leakage    inputs that tell the target                       labels    the target
neighbours rows that copy others but for noise               residuals numbers of the target
parts      groups and times that a random split tears apart

A check is a function of a `Table` that yields findings, and a line in `REGISTRY`. No I/O, no clock.
An installed package registers its own (`eagleray.plugins`).
"""

from collections.abc import Callable, Iterable, Iterator

from eagleray import plugins
from eagleray.audit import labels, leakage, neighbours, parts, repeats, values
from eagleray.audit.table import Table as Table
from eagleray.findings import Finding

Check = Callable[[Table], Iterable[Finding]]

REGISTRY: plugins.Registry[Check] = plugins.Registry(
    "check of the audit",
    {
        "target copy": leakage.copies,
        "target near-copy": leakage.near_copies,
        "target giveaway": leakage.giveaways,
        "rows across parts": repeats.across_parts,
        "groups across parts": parts.groups,
        "time across parts": parts.times,
        "identifier order": leakage.ordered,
        "label noise": labels.noise,
        "imbalance": labels.imbalance,
        "duplicate rows": repeats.duplicates,
        "near-duplicate rows": repeats.near_duplicates,
        "near-duplicates with noise": neighbours.noisy_copies,
        "missing values": values.missing,
        "constant": values.constant,
        "mixed types": values.mixed,
        "merging names": values.merging,
        "rare categories": values.rare,
        "outliers": values.outliers,
        "future dates": values.future,
        "identifiers": values.identifiers,
        "unscaled": values.unscaled,
    },
)

ORDER = ("error", "warn", "note")
"""Severities of findings of data, the worst first."""


def examine(table: Table) -> list[Finding]:
    """All findings, the worst first, each under the name of its check."""
    return sorted(_found(table), key=lambda one: ORDER.index(one.severity))


def reached(findings: Iterable[Finding], fail_on: str) -> list[Finding]:
    """The findings that end a run under `audit.fail_on`."""
    if fail_on not in ORDER:
        return []
    worst = ORDER[: ORDER.index(fail_on) + 1]
    return [one for one in findings if one.severity in worst]


def _found(table: Table) -> Iterator[Finding]:
    for name in REGISTRY:
        if name in table.task.unaudited:
            continue
        for one in REGISTRY[name](table):
            yield one.named(name)
