"""`eagleray why NAME`: why a run waits or failed, or a model does not answer, and the fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit

if TYPE_CHECKING:
    from k8s.diagnose import Explanation

_ARROW = "← "


def why(
    name: Annotated[
        str,
        typer.Argument(
            help="A run, an attempt or an experiment; a release, a RayService or a model."
        ),
    ],
    namespace: options.Namespace = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where the registry is, if the release's storage is not reached from here."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Explain why a run waits or failed, or a model does not answer; exit with 1 if unknown."""
    from k8s import api, diagnose
    from k8s.diagnose import snapshot

    found = snapshot.about(api.Api(namespace), name, storage)
    explained = [diagnose.explain(one) for one in found]
    emit(explained, as_json, table=[[line] for line in lines(explained)])
    if any(one.kind == "Cluster" for one in explained):
        raise typer.Exit(1)


def lines(explained: Sequence[Explanation]) -> Iterator[str]:
    """What is printed: the evidence, an object a line, then the cause and its fix."""
    for number, one in enumerate(explained):
        if number:
            yield ""
        for depth, line in enumerate(one.finding.evidence):
            yield f"{'  ' * depth}{_ARROW if depth else ''}{line}"
        well = "none is seen" if one.unseen else "none, nothing is wrong"
        yield f"cause: {well if one.finding.severity == 'pass' else one.finding.message}"
        if one.finding.fix:
            yield f"fix:   {one.finding.fix}"
        for line in one.unseen:
            yield f"not looked at: {line}"
