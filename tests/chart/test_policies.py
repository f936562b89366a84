"""Who may talk to whom: what is needed is open, and nothing else."""

import itertools

import pytest

from tests.chart import chart
from tests.chart.policies import Place, allowed

OUTSIDE = {
    "friend": Place("friend", {"app": "web"}),
    "stranger": Place("stranger", {"app": "web"}, "elsewhere"),
    "operator": Place("operator", {"app.kubernetes.io/component": "kuberay-operator"}, "kuberay"),
    "prometheus": Place("prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring"),
    "gateway": Place("gateway", {"app": "nginx"}, "ingress"),
    "notebook": Place("notebook", {"app": "notebook"}),
    "dns": Place("dns", {"k8s-app": "kube-dns"}, "kube-system"),
    "redis": Place("redis", {"app": "redis"}, "data"),
    "internet": Place("internet", address="198.51.100.7"),
    "warehouse": Place("warehouse", address="10.20.0.9"),
    "metadata": Place("metadata", address="169.254.169.254"),
}
PORTS = (22, 53, 80, 443, 988, 5432, 6379, 6443, 8000, 8001, 8080, 8265, 8333, 9000, 10001, 52365)
RAY = ("head", "worker")


def places(found):
    """The pods of a render by a short name: serving/head, tuning/worker, runs/submitter, test …"""
    own = {}
    for pod in chart.pods(found):
        labels = pod["metadata"]["labels"]
        role = labels.get("eagleray/role")
        name = labels["app.kubernetes.io/component"] + (f"/{role}" if role else "")
        own[name] = Place(name, labels)
    return own | OUTSIDE


def openings(found):
    """Every connection that a release's policies let through, as (from, to, port)."""
    policies = chart.of_kind(found, "NetworkPolicy")
    everywhere = places(found)
    return {
        (source, target, port)
        for source, target in itertools.permutations(everywhere, 2)
        if not {source, target} <= set(OUTSIDE)
        for port in PORTS
        if allowed(policies, everywhere[source], everywhere[target], port)
    }


def between(sources, targets, *ports):
    return set(itertools.product(sources, targets, ports))


def within(component, roles):
    names = [f"{component}/{role}" for role in roles]
    return {(a, b, port) for a, b in itertools.permutations(names, 2) for port in PORTS}


def test_the_pods_of_a_default_release_reach_what_they_need_and_nothing_else():
    found = chart.documents(chart.MINIMAL)
    serving, runs = [f"serving/{role}" for role in RAY], [f"runs/{role}" for role in RAY]
    everybody = [*serving, *runs, "runs/submitter", "test"]
    ray = [*serving, *runs, "runs/submitter"]
    heads = ["serving/head", "runs/head"]
    assert openings(found) == (
        within("serving", RAY)
        | within("runs", (*RAY, "submitter"))
        | between(everybody, ["dns"], 53)
        | between(["friend", "notebook", "test"], ["serving/worker"], 8000)
        | between(["prometheus"], ["serving/worker"], 8001)
        # the pods of a release are of its namespace, whose pods may ask, where they may speak
        | between(["operator"], heads, 8265)
        | between(["prometheus"], ray, 8080)
        | between(ray, ["internet", "warehouse"], 443)
        | between(heads, ["internet", "warehouse"], 443, 6443)
        | between(ray, ["metadata"], 80, 988)
    )


def test_the_pods_of_a_release_with_everything_reach_what_they_need_and_nothing_else():
    found = chart.documents(chart.values_of("everything"))
    serving, tuning = [f"serving/{role}" for role in RAY], [f"tuning/{role}" for role in RAY]
    ray = [*serving, *tuning, "runs/submitter"]
    everybody = [*ray, "test", "store", "schedules", "uninstall"]
    heads = ["serving/head", "tuning/head"]
    callers = ["friend", "notebook", "test", "gateway"]
    assert openings(found) == (
        within("serving", RAY)
        | within("tuning", RAY)
        | between(everybody, ["dns"], 53)
        | between(["runs/submitter"], tuning, 8265)
        | between(callers, ["serving/worker"], 8000)
        | between(set(callers) - {"test"}, ["serving/worker"], 9000)
        | between(["prometheus"], ["serving/worker"], 8001)
        | between(["operator", "notebook"], heads, 8265)
        | between(["prometheus"], ray, 8080)
        | between(ray, ["store"], 8333)
        | between([*heads, "schedules", "uninstall"], ["internet", "warehouse"], 443, 6443)
        | between(["serving/head"], ["redis", "dns", "operator", "prometheus"], 6379)
        | between(["serving/head"], ["gateway", "stranger", "friend", "notebook"], 6379)
        | between(["serving/head"], ["internet", "warehouse"], 6379)
        | between(ray, ["warehouse"], 5432)
    )


def test_a_release_that_is_locked_down_opens_named_peers_alone():
    found = chart.documents(chart.values_of("locked-down"))
    seen = openings(found)
    assert not [opening for opening in seen if "internet" in opening or "friend" in opening]
    assert not [opening for opening in seen if "metadata" in opening or "prometheus" in opening]
    assert between(["serving/head"], ["redis"], 6379) <= seen
    policies = chart.of_kind(found, "NetworkPolicy")
    worker = places(found)["serving/worker"]
    shop = Place("checkout", {"app": "checkout"}, "shop")
    storage = Place("s3", address="10.0.9.4")
    assert allowed(policies, shop, worker, 8000)
    assert allowed(policies, worker, storage, 8443)
    assert not allowed(policies, worker, storage, 443)


@pytest.mark.parametrize(("least", "roles"), [(2, ["worker"]), (0, ["head", "worker"])])
def test_who_may_ask_by_rest_may_ask_by_grpc_once_it_is_on(least, roles):
    serving = {"replicas": {"min": least}}
    off, on = (
        openings(chart.documents(chart.merged(chart.MINIMAL, {"serving": serving | changes})))
        for changes in ({}, {"grpc": {"enabled": True}})
    )
    pods = [f"serving/{role}" for role in roles]
    assert on - off == between(["friend", "notebook"], pods, 9000) | (
        between(["operator"], pods, 9000) if least == 0 else set()
    )
    assert off <= on


@pytest.mark.parametrize("name", ["clients", "gateway", "dashboard", "operator", "scrapers"])
def test_a_list_without_peers_opens_to_nobody(name):
    closed = {key: [] for key in ("clients", "gateway", "dashboard", "operator", "scrapers")}
    opened = closed | {name: [{"podSelector": {"matchLabels": {"app": "web"}}}]}
    policies = {
        key: openings(chart.documents(chart.merged(chart.MINIMAL, {"networkPolicy": lists})))
        for key, lists in (("closed", closed), ("opened", opened))
    }
    entering = {each for each in policies["closed"] if each[0] in OUTSIDE}
    assert entering == set()
    assert {each[0] for each in policies["opened"] if each[0] in OUTSIDE} == {"friend"}


def test_egress_without_peers_is_closed():
    lists = {"dns": [], "storage": [], "apiServer": {"to": []}, "identity": {"to": []}}
    values = chart.merged(chart.MINIMAL, {"networkPolicy": lists})
    assert {each[1] for each in openings(chart.documents(values))} & set(OUTSIDE) == set()


def test_names_are_asked_by_both_protocols():
    found = chart.documents(chart.MINIMAL)
    policies, everywhere = chart.of_kind(found, "NetworkPolicy"), places(found)
    for source in ("serving/head", "runs/worker", "test"):
        assert allowed(policies, everywhere[source], everywhere["dns"], 53, "UDP")


def test_two_releases_do_not_reach_each_other_but_for_the_endpoint():
    one, two = (chart.documents(chart.MINIMAL, name=name) for name in ("one", "two"))
    policies = [*chart.of_kind(one, "NetworkPolicy"), *chart.of_kind(two, "NetworkPolicy")]
    theirs = {f"two/{name}": place for name, place in places(two).items() if name not in OUTSIDE}
    for place in theirs.values():
        for port in PORTS:
            assert not allowed(policies, places(one)["serving/worker"], place, port)
            assert not allowed(policies, place, places(one)["serving/head"], port)


def test_every_pod_of_a_release_is_under_its_policies():
    for case in chart.CI:
        found = chart.documents(chart.values_of(case))
        deny = chart.one(found, "NetworkPolicy", "-deny")["spec"]
        assert deny["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in deny
        for pod in chart.pods(found):
            assert deny["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
