"""`eagleray why NAME`: what keeps a run, a service or a promoted version, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import places
from eagleray.cli.output import emit

if TYPE_CHECKING:
    from k8s.why import Explanation

_ARROW = "← "


def why(
    name: Annotated[
        str,
        typer.Argument(
            help="A run, an attempt or an experiment; a release, a RayService or a model."
        ),
    ],
    namespace: places.Namespace = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where the registry is, if the release's storage is not reached from here."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Tell why a run waits or failed, or a model does not answer; exit with 1 if none can tell."""
    from k8s import api, situation
    from k8s import why as reasons

    found = situation.gather(api.Api(namespace), name, storage)
    explained = [reasons.explain(one) for one in found]
    emit(explained, as_json, table=[[line] for line in _lines(explained)])
    if any(one.kind == "Cluster" for one in explained):
        raise typer.Exit(1)


def _lines(explained: Sequence[Explanation]) -> Iterator[str]:
    for number, one in enumerate(explained):
        if number:
            yield ""
        for depth, line in enumerate(one.chain):
            yield f"{'  ' * depth}{_ARROW if depth else ''}{line}"
        yield f"cause: {one.cause or ('none is seen' if one.unseen else 'none, nothing is wrong')}"
        if one.mend:
            yield f"mend:  {one.mend}"
        for line in one.unseen:
            yield f"not looked at: {line}"
