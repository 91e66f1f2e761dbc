"""NetworkPolicy: who may talk to the aggregator, by how it is exposed and where the operator runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engram_operator.model import Object
from engram_operator.settings import Settings
from tests.control.building import SETTINGS, UID, build, make_job

GUARDED = replace(SETTINGS, network_policy=True, own_namespace="engram-system")


def policy_of(spec: str = "", settings: Settings = GUARDED) -> Object:
    found = build(make_job(spec), settings).policy
    assert found is not None
    return found


def rule(policy: Object, port: int) -> dict[str, Any]:
    (found,) = (item for item in policy["spec"]["ingress"] if item["ports"][0]["port"] == port)
    return dict(found)


def labels(peer: Object) -> dict[str, str]:
    found: dict[str, str] = peer["podSelector"]["matchLabels"]
    return found


def test_none_unless_asked_for() -> None:
    assert build(make_job(), SETTINGS).policy is None
    assert "NetworkPolicy" not in {item["kind"] for item in build(make_job(), SETTINGS).all}


def test_it_guards_this_jobs_aggregator_and_no_other_pod() -> None:
    policy = policy_of()
    assert policy["metadata"]["name"] == "digits"
    selected = policy["spec"]["podSelector"]["matchLabels"]
    children = build(make_job(), GUARDED)
    template = children.aggregation["spec"]["template"]["metadata"]["labels"]
    assert selected.items() <= template.items()
    assert selected["engram.dev/job-uid"] == UID
    for job in children.workers.values():
        assert not selected.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_workers_reach_the_federation_port_alone() -> None:
    (peer,) = rule(policy_of(), 7363)["from"]
    assert labels(peer)["engram.dev/role"] == "worker"
    assert "namespaceSelector" not in peer, "of the job's namespace"
    assert labels(peer)["engram.dev/job-uid"] == UID


@pytest.mark.parametrize(
    "expose", ["{type: NodePort, address: a.b}", "{address: agg.example.org}", "{type: HostPort}"]
)
def test_what_is_exposed_is_open(expose: str) -> None:
    node = "nodeName: n1, " if "HostPort" in expose else ""
    assert "from" not in rule(policy_of(f"aggregator: {{{node}expose: {expose}}}"), 7363)


def test_the_status_port_is_for_operator_report_and_prometheus() -> None:
    report, operator, prometheus = rule(policy_of(), 9464)["from"]
    assert labels(report)["engram.dev/role"] == "report"
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "engram-system"}
    assert labels(operator) == {"app.kubernetes.io/name": "engram-operator"}
    assert prometheus["namespaceSelector"] == {}
    named = policy_of(settings=replace(GUARDED, prometheus_namespace="monitoring"))
    selector = rule(named, 9464)["from"][2]["namespaceSelector"]
    assert selector == {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}


def test_an_operator_outside_the_cluster_comes_through_the_api_server() -> None:
    assert "from" not in rule(policy_of(settings=replace(GUARDED, own_namespace="")), 9464)
