"""NetworkPolicies, evaluated: which pod may talk to which, at which port."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A pod, or with an address something that is no pod.

    Attributes:
        name: for messages.
        labels: of the pod.
        namespace: the pod's.
        address: of what is no pod.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    namespace: str = "ml"
    address: str = ""


def allowed(
    policies: list[Policy], source: Place, target: Place, port: int, protocol: str = "TCP"
) -> bool:
    """Whether policies of the namespace `ml` let a connection through, in both directions."""
    leaves = _passes(policies, source, target, "egress", port, protocol)
    return leaves and _passes(policies, target, source, "ingress", port, protocol)


def _passes(
    policies: list[Policy], own: Place, other: Place, way: str, port: int, protocol: str
) -> bool:
    """What selects nothing of the pod opens everything; one rule of one policy is enough."""
    about = [
        policy["spec"]
        for policy in policies
        if own.namespace == "ml"
        and not own.address
        and way.title() in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], own.labels)
    ]
    rules = [rule for spec in about for rule in spec.get(way, [])]
    peers = {"ingress": "from", "egress": "to"}[way]
    return not about or any(
        _peers_match(rule.get(peers), other) and _port_matches(rule.get("ports"), port, protocol)
        for rule in rules
    )


def _peers_match(peers: list[Mapping[str, Any]] | None, other: Place) -> bool:
    return not peers or any(_peer_matches(peer, other) for peer in peers)


def _peer_matches(peer: Mapping[str, Any], other: Place) -> bool:
    if "ipBlock" in peer:
        return bool(other.address) and _in_block(peer["ipBlock"], other.address)
    if other.address:
        return False
    named = {"kubernetes.io/metadata.name": other.namespace}
    if "namespaceSelector" in peer:
        there = _selects(peer["namespaceSelector"], named)
    else:
        there = other.namespace == "ml"
    return there and _selects(peer.get("podSelector", {}), other.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    number = ipaddress.ip_address(address)
    inside = number in ipaddress.ip_network(block["cidr"])
    return inside and not any(
        number in ipaddress.ip_network(hole) for hole in block.get("except", [])
    )


def _port_matches(ports: list[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any(
        each.get("protocol", "TCP") == protocol and each.get("port", port) == port for each in ports
    )


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(_holds(each, labels) for each in selector.get("matchExpressions", []))


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
    return value is None
