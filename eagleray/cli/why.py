"""`eagleray why NAME`: why a run waits or failed, or a model does not answer, and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit

if TYPE_CHECKING:
    from k8s.diagnose import Explanation

_NAME = "A run, an attempt or an experiment; a release, a RayService or a model."
_STORAGE = "Where the registry is, if the release's storage is not reached from here."


def why(
    name: Annotated[str, typer.Argument(help=_NAME)],
    namespace: options.Namespace = None,
    storage: Annotated[str | None, typer.Option(help=_STORAGE)] = None,
    as_json: options.Json = False,
) -> None:
    """Explain why a run waits or failed, or a model does not answer; exit with 1 if unknown."""
    from k8s import api, diagnose
    from k8s.diagnose import snapshot

    found = [diagnose.explain(one) for one in snapshot.read(api.Api(namespace), name, storage)]
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
