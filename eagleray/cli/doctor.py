"""`eagleray doctor`: checks of this machine, storage and a cluster, with a fix for what fails."""

from typing import Annotated

import typer

from eagleray import doctor as checks
from eagleray import machine
from eagleray.cli import options
from eagleray.cli.output import emit
from eagleray.errors import UserError
from eagleray.findings import Finding, skipped

_STORAGE = f"s3://bucket[/prefix] or file:///path; {options.EMBEDDED} without a cluster."
_SHOWN = {"pass": "passes", "warn": "warns", "fail": "fails", "skip": "skipped"}


def doctor(
    storage: Annotated[str | None, typer.Option(help=_STORAGE, envvar="EAGLERAY_STORAGE")] = None,
    address: Annotated[str | None, typer.Option(help="Ray's dashboard, http://head:8265.")] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="The cluster of KUBECONFIG.")
    ] = False,
    namespace: options.Namespace = None,
    release: options.Release = None,
    as_json: options.Json = False,
) -> None:
    """Check this machine, storage and a cluster; each line that fails names its fix.

    Ends with 1 when a line fails.
    """
    if address is not None and not address.startswith(("http://", "https://")):
        law = "--address: must be http://host:8265 of Ray's dashboard"
        raise UserError(f"{law}, but got {address}")
    if (namespace or release) and not kubernetes:
        raise UserError("--namespace, --release: must stand beside --kubernetes")
    alone = not kubernetes and address is None
    findings = [*machine.examine()] if alone else []
    if storage is not None or alone:
        findings += checks.check_storage(storage or options.EMBEDDED)
    else:
        absent = skipped("no storage is given", "eagleray doctor --storage s3://…")
        findings.append(absent.named("storage"))
    if address is not None:
        findings += checks.check_ray(address)
    if kubernetes:
        from k8s.diagnose import checks as cluster

        findings += cluster.examine(namespace, release)
    emit(findings, as_json, table=[row for finding in findings for row in _rows(finding)])
    if any(finding.severity == "fail" for finding in findings):
        raise typer.Exit(1)


def _rows(finding: Finding) -> list[tuple[str, str, str]]:
    message = " ".join(finding.message.split())
    fix = [("", "", f"fix: {finding.fix}")] if finding.fix else []
    return [(_SHOWN[finding.severity], finding.check, message), *fix]
