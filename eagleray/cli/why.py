"""`eagleray why NAME`: why a run waits or failed, or a model does not answer, and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit

if TYPE_CHECKING:
    from eagleray.findings import Explanation

_NAME = "A run, an attempt, a search or an experiment; a release, a RayService or a model."
_STORAGE = "Where searches and models are, if the driver's or the release's is not reached."


def why(
    name: Annotated[str, typer.Argument(help=_NAME)],
    address: options.Address = None,
    namespace: options.Namespace = None,
    storage: Annotated[str | None, typer.Option(help=_STORAGE, envvar="EAGLERAY_STORAGE")] = None,
    as_json: options.Json = False,
) -> None:
    """Explain why a run or its trials wait, or a model does not answer; exit with 1 if unknown."""
    from eagleray.api.runs import explain

    found = explain(name, address, namespace=namespace, storage=storage)
    table = [[line] for one in found for line in ("", *lines(one))]
    emit(found, as_json, table=table[1:])
    if any(one.kind == "Cluster" for one in found):
        raise typer.Exit(1)


def lines(explained: Explanation) -> Iterator[str]:
    """Lines to print: the evidence, an object a line, then the cause and its fix."""
    finding = explained.finding
    for depth, line in enumerate(finding.evidence):
        yield f"{'  ' * depth}{'← ' if depth else ''}{line}"
    well = "none found" if explained.unseen else "none, nothing is wrong"
    yield f"cause: {well if finding.severity == 'pass' else finding.message}"
    if finding.fix:
        yield f"fix:   {finding.fix}"
    yield from (f"not checked: {line}" for line in explained.unseen)
