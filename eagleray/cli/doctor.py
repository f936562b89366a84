"""`eagleray doctor`: checks of this machine, storage and a cluster, with a fix for what fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit
from eagleray.errors import UserError

if TYPE_CHECKING:
    from eagleray.findings import Finding

HERE = "s3://eagleray"
_SHOWN = {"pass": "passes", "warn": "warns", "fail": "fails", "skip": "skipped"}


def doctor(
    storage: Annotated[
        str | None,
        typer.Option(
            help="s3://bucket[/prefix] or file:///path; s3://eagleray when no cluster is named.",
            envvar="EAGLERAY_STORAGE",
        ),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray's dashboard, http://head:8265.")] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="The cluster of KUBECONFIG.")
    ] = False,
    namespace: options.Namespace = None,
    release: Annotated[
        str | None, typer.Option(help="Kubernetes: which release, if there are several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check this machine, storage and a cluster; each line that fails names its fix.

    Ends with 1 when a line fails.
    """
    from eagleray.findings import healthy

    findings = _examined(storage, address, kubernetes, namespace, release)
    emit(findings, as_json, table=[row for finding in findings for row in _rows(finding)])
    if not healthy(findings):
        raise typer.Exit(1)


def _examined(
    storage: str | None,
    address: str | None,
    kubernetes: bool,
    namespace: str | None,
    release: str | None,
) -> list[Finding]:
    from eagleray import doctor as checks
    from eagleray import findings as results
    from eagleray import machine

    _check(address, kubernetes, namespace or release)
    away = kubernetes or address is not None
    findings = [] if away else machine.examine()
    if storage is not None or not away:
        findings += checks.of_storage(storage or HERE)
    else:
        skipped = results.skipped("none is named", "eagleray doctor --storage s3://…")
        findings.append(skipped.named("storage"))
    if address is not None:
        from ray_jobs import doctor as ray

        findings += ray.examine(address)
    if kubernetes:
        from k8s.diagnose import doctor as cluster

        findings += cluster.examine(namespace, release)
    return findings


def _check(address: str | None, kubernetes: bool, alone: str | None) -> None:
    if address is not None and not address.startswith(("http://", "https://")):
        raise UserError(
            f"--address: must be http://host:8265 of Ray's dashboard, but got {address}"
        )
    if alone and not kubernetes:
        raise UserError("--namespace, --release: must stand beside --kubernetes")


def _rows(finding: Finding) -> list[tuple[str, str, str]]:
    """The line of a finding, and below it its fix."""
    said = " ".join(finding.message.split())
    fix = [("", "", f"fix: {finding.fix}")] if finding.fix else []
    return [(_SHOWN[finding.severity], finding.check, said), *fix]
