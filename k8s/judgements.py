"""What `eagleray doctor` makes of what it saw in a cluster. Pure: objects in, findings out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eagleray import __version__
from eagleray.doctor import Finding
from k8s import release as releases

Object = Mapping[str, Any]

KUBERNETES = (29, 37)
"""Oldest and newest minor version of Kubernetes 1 that the chart is held to."""
DEFAULT = "storageclass.kubernetes.io/is-default-class"
_UNPULLED = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


def version(said: Object) -> Finding:
    """Judge the version that the API tells of itself."""
    told = str(said.get("gitVersion", ""))
    minor = int("".join(filter(str.isdigit, str(said.get("minor") or told.split(".")[1]))))
    if KUBERNETES[0] <= minor <= KUBERNETES[1]:
        return Finding("Kubernetes", "pass", f"{told} answers")
    law = f"{told} answers; EagleRay is held to 1.{KUBERNETES[0]} to 1.{KUBERNETES[1]}"
    return Finding("Kubernetes", "warn", law, "upgrade the cluster, or: make e2e")


def pods(namespace: str, release: str, found: Sequence[Object]) -> Finding:
    """Judge a release by the phases of its pods."""
    counts = Counter(str(pod.get("status", {}).get("phase")) for pod in found)
    said = ", ".join(f"{count} {phase}" for phase, count in sorted(counts.items())) or "none"
    if counts.keys() <= {"Running", "Succeeded"}:
        return Finding("pods", "pass", said)
    mend = f"kubectl -n {namespace} describe pods -l app.kubernetes.io/instance={release}"
    return Finding("pods", "warn", said, mend)


def images(namespace: str, found: Sequence[Object], upgrade: str) -> Finding:
    """Judge whether images can be pulled, by how the pods fare; `upgrade` is Helm's command."""
    for pod in found:
        for image, reason, said in _unpulled(pod):
            name = pod["metadata"]["name"]
            law = f"{image} cannot be pulled for {name} ({reason}): {said}"
            return Finding("image", "fail", law, _pulling(reason, upgrade))
    pulled = sorted({image for pod in found for image in _pulled(pod)})
    if pulled:
        return Finding("image", "pass", f"pulled: {', '.join(pulled)}")
    return Finding("image", "skip", f"no pod of the release in {namespace} has pulled one yet")


def named_secrets(templates: Sequence[Object]) -> dict[str, str]:
    """The Secrets that pods need, by name, with the command that makes each."""
    found = {}
    for spec in templates:
        for one in spec.get("imagePullSecrets", []):
            found[one["name"]] = "docker-registry {} --docker-server=… --docker-username=…"
        for container in spec["containers"]:
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {}).get("secretKeyRef")
                if source and not source.get("optional"):
                    found[source["name"]] = "generic {} --from-literal=" + f"{source['key']}=…"
    return {name: f"kubectl create secret {how.format(name)}" for name, how in found.items()}


def secrets(namespace: str, wanted: Mapping[str, str], there: set[str]) -> Finding:
    """Judge whether the Secrets are there that the release's pods name."""
    if not wanted:
        return Finding("secrets", "skip", "the release names none")
    for name in sorted(wanted.keys() - there):
        law = f"pods need Secret {name}, but namespace {namespace} has none of that name"
        return Finding("secrets", "fail", law, f"{wanted[name]} -n {namespace}")
    return Finding("secrets", "pass", f"{', '.join(sorted(wanted))}: there")


def volumes(claims: Sequence[Object], classes: Sequence[Object]) -> Finding:
    """Judge the claims of the release, and the classes that would fulfil them."""
    if not claims:
        return Finding("storage class", "skip", "the release asks for no volume")
    waiting = [claim for claim in claims if claim.get("status", {}).get("phase") != "Bound"]
    if not waiting:
        return Finding("storage class", "pass", f"{len(claims)} of {len(claims)} volumes are bound")
    name = waiting[0]["metadata"]["name"]
    wanted = waiting[0]["spec"].get("storageClassName")
    known = {one["metadata"]["name"]: one for one in classes}
    defaults = [name for name, one in known.items() if _is_default(one)]
    again = "helm uninstall, then: helm install … --set objectStore.storageClassName="
    if wanted and wanted not in known:
        law = f"{name} waits for class {wanted}, but there is {', '.join(known) or 'none'}"
        return Finding("storage class", "fail", law, f"{again}{next(iter(known), '…')}")
    if not wanted and not defaults:
        first = next(iter(known), "NAME")
        patch = f'{{"metadata":{{"annotations":{{"{DEFAULT}":"true"}}}}}}'
        law = f"{name} waits for the default class, but no class is the default"
        return Finding("storage class", "fail", law, f"kubectl patch sc {first} -p '{patch}'")
    law = f"{name} waits for a volume of class {wanted or defaults[0]}"
    return Finding("storage class", "warn", law, f"kubectl describe pvc {name}")


def webhooks(found: Sequence[Object], answering: set[tuple[str, str]]) -> list[Finding]:
    """Judge the webhooks that Ray objects pass: KubeRay's own, Kueue's and others'.

    Args:
        found: webhook configurations, of either kind.
        answering: namespace and name of the Services behind which a pod is ready.
    """
    findings = []
    for hook in ray_hooks(found):
        place = service(hook)
        if place is None or place in answering:
            continue
        state = "fail" if hook.get("failurePolicy", "Fail") == "Fail" else "warn"
        law = f"{hook['name']} asks service {'/'.join(place)}, which has no ready pod"
        mend = f"kubectl -n {place[0]} get endpointslices,pods"
        findings.append(
            Finding("webhook", "fail", f"{law}: every Ray object is refused", mend)
            if state == "fail"
            else Finding("webhook", "warn", f"{law}, and is passed over", mend)
        )
    names = ", ".join(hook["name"] for hook in ray_hooks(found))
    well = Finding("webhook", "pass", f"{names}: answered for") if names else None
    return findings or [well or Finding("webhook", "skip", "none is asked about Ray objects")]


def ray_hooks(found: Sequence[Object]) -> list[Object]:
    """The webhooks that are asked about Ray objects."""
    hooks = [hook for one in found for hook in one.get("webhooks", [])]
    groups = [
        {group for rule in hook.get("rules", []) for group in rule["apiGroups"]} for hook in hooks
    ]
    return [hook for hook, asked in zip(hooks, groups, strict=True) if "ray.io" in asked]


def service(hook: Object) -> tuple[str, str] | None:
    """Namespace and name of the Service behind a webhook; None when it is a URL."""
    named = hook["clientConfig"].get("service")
    return (named["namespace"], named["name"]) if named else None


def answers(slices: Sequence[Object]) -> bool:
    """Whether an endpoint is ready behind a Service; one that does not say is."""
    ends = [end for one in slices for end in one.get("endpoints") or []]
    return any(end.get("conditions", {}).get("ready") is not False for end in ends)


def dns(found: Sequence[Object]) -> Finding:
    """Judge the cluster's DNS by its pods."""
    well = sum(releases.ready(pod) for pod in found)
    if well:
        return Finding("DNS", "pass", f"{well} of {len(found)} pods are ready")
    if found:
        mend = "kubectl -n kube-system rollout restart deployment/coredns"
        return Finding("DNS", "fail", f"none of {len(found)} pods is ready", mend)
    said = "kube-system has no pod labelled k8s-app=kube-dns; other clusters keep it elsewhere"
    return Finding("DNS", "warn", said, "kubectl get pods -A | grep -i dns")


def metrics(release: str, operator: bool, monitors: Sequence[Object]) -> Finding:
    """Judge whether somebody scrapes the release: a matter of the Prometheus operator."""
    if not operator:
        return Finding("metrics", "skip", "the cluster has no Prometheus operator")
    if monitors:
        names = ", ".join(one["metadata"]["name"] for one in monitors)
        return Finding("metrics", "pass", f"scraped as {names} say")
    law = f"the cluster has the Prometheus operator, but {release} has no monitor"
    mend = f"helm upgrade {release} helm/eagleray --reuse-values"
    return Finding("metrics", "warn", law, f"{mend} --set monitoring.podMonitor.enabled=true")


def of_release(found: Sequence[Object], release: str) -> list[Object]:
    """The objects that bear a release's label."""
    label = "app.kubernetes.io/instance"
    return [one for one in found if one["metadata"].get("labels", {}).get(label) == release]


def _unpulled(pod: Object) -> Iterator[tuple[str, str, str]]:
    for status in _statuses(pod):
        waits = status.get("state", {}).get("waiting", {})
        if waits.get("reason") in _UNPULLED:
            yield status["image"], waits["reason"], waits.get("message", "")


def _pulled(pod: Object) -> Iterator[str]:
    yield from (status["image"] for status in _statuses(pod) if status.get("imageID"))


def _statuses(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _pulling(reason: str, upgrade: str) -> str:
    if reason == "ErrImageNeverPull":
        return f"kind load docker-image eagleray:{__version__}"
    return f"{upgrade} --set image.repository=…,image.tag=…,image.pullSecrets[0]=…"


def _is_default(storage_class: Object) -> bool:
    annotations: Mapping[str, str] = storage_class["metadata"].get("annotations", {})
    return annotations.get(DEFAULT) == "true"
