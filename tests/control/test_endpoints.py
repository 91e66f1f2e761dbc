"""Where workers find the aggregator, for every exposure, and what cannot be worked out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engram_operator.manifests import EndpointUnknown, endpoints_of
from engram_operator.manifests.endpoints import join, split
from engram_operator.model import ConditionView, NodeView, Object
from tests.control.building import SETTINGS, make_job

UP, DOWN = ConditionView("True"), ConditionView("Unknown")
CLOUD = NodeView("cloud", False, "10.0.0.1", UP)
OTHER = NodeView("other", False, "10.0.0.2", UP)
LATE = NodeView("a-node-that-is-down", False, "10.0.0.3", DOWN)
EDGE = NodeView("an-edge", True, "10.0.0.9", UP)
SIX = NodeView("six", False, "fd00::1", UP)
ADDRESS = "spec.aggregator.expose.address"
WRITE = f"write in {ADDRESS} an address of a node or load balancer that the workers can dial"
SERVICE = "digits-aggregation.lab.svc.cluster.local:7363"


def node_port(port: int | None) -> Object:
    entry: Object = {"name": "tcp-0", "port": 7363}
    return {"spec": {"ports": [entry if port is None else {**entry, "nodePort": port}]}}


@pytest.mark.parametrize(
    ("expose", "service", "nodes", "expected"),
    [
        ("{}", None, None, (SERVICE,)),
        ("{address: digits.mesh}", None, None, ("digits.mesh:7363",)),
        ("{type: NodePort, address: a.b, port: 30000}", None, None, ("a.b:30000",)),
        ("{type: NodePort, address: 'fd00::2', port: 30000}", None, None, ("[fd00::2]:30000",)),
        ("{type: NodePort, address: a.b}", None, None, ()),
        ("{type: NodePort, address: a.b}", node_port(None), None, ()),
        ("{type: NodePort, address: a.b}", {}, None, ()),
        ("{type: NodePort, address: a.b}", node_port(31234), None, ("a.b:31234",)),
        ("{type: NodePort}", node_port(31234), (EDGE, OTHER, CLOUD), ("10.0.0.1:31234", "10.0.0.2:31234")),
        ("{type: NodePort}", node_port(31234), (LATE, CLOUD), ("10.0.0.1:31234", "10.0.0.3:31234")),
        ("{type: NodePort, port: 30001}", None, (SIX,), ("[fd00::1]:30001",)),
        ("{type: HostPort}", None, None, ("cloud:7363",)),
        ("{type: HostPort}", None, (EDGE, CLOUD), ("10.0.0.1:7363",)),
        ("{type: HostPort}", None, (replace(CLOUD, internal_ip=""),), ("cloud:7363",)),
        ("{type: HostPort, port: 9000, address: a.b}", None, (CLOUD,), ("a.b:9000",)),
    ],
)
def test_endpoints(
    expose: str, service: Object | None, nodes: tuple[NodeView, ...] | None, expected: tuple[str, ...]
) -> None:
    job = make_job(f"aggregator: {{nodeName: cloud, expose: {expose}}}")
    assert endpoints_of(job, service, nodes, SETTINGS) == expected


def test_the_cluster_domain_is_the_operators_setting() -> None:
    settings = replace(SETTINGS, cluster_domain="corp.example")
    assert endpoints_of(make_job(), None, None, settings) == ("digits-aggregation.lab.svc.corp.example:7363",)


def test_at_most_three_nodes_are_listed_whatever_their_order() -> None:
    nodes = [NodeView(f"n{number}", False, f"10.0.0.{number}", UP) for number in range(6)]
    job = make_job("aggregator: {expose: {type: NodePort, port: 30000}}")
    expected = ("10.0.0.0:30000", "10.0.0.1:30000", "10.0.0.2:30000")
    assert endpoints_of(job, None, nodes, SETTINGS) == expected
    assert endpoints_of(job, None, nodes[::-1], SETTINGS) == expected


@pytest.mark.parametrize(
    ("expose", "nodes", "message"),
    [
        (
            "{type: NodePort}",
            None,
            f"{ADDRESS}: is missing, and this operator may not read nodes: {WRITE}",
        ),
        (
            "{type: NodePort}",
            (EDGE, replace(CLOUD, internal_ip="")),
            f"{ADDRESS}: is missing, and no node outside the edge has an InternalIP: {WRITE}",
        ),
        (
            "{type: HostPort}",
            (EDGE, OTHER),
            "spec.aggregator.nodeName: there is no node cloud: write one of: an-edge, other",
        ),
        ("{type: HostPort}", (), "spec.aggregator.nodeName: there is no node cloud: add the node first"),
        (
            "{address: 'a.b:80'}",
            None,
            "spec.aggregator.expose.address: 'a.b:80' names a port: write the host only, an IPv6 address "
            "without brackets, and the port in spec.aggregator.expose.port",
        ),
        (
            "{address: 'https://a.b'}",
            None,
            "spec.aggregator.expose.address: 'https://a.b' is a URL: write the host name or address only",
        ),
    ],
)
def test_what_somebody_has_to_write(expose: str, nodes: tuple[NodeView, ...] | None, message: str) -> None:
    job = make_job(f"aggregator: {{nodeName: cloud, expose: {expose}}}")
    with pytest.raises(EndpointUnknown) as caught:
        endpoints_of(job, None, nodes, SETTINGS)
    assert str(caught.value) == message


@pytest.mark.parametrize("host", ["a.b", "10.0.0.1", "fd00::1"])
def test_an_endpoint_splits_into_what_it_was_joined_from(host: str) -> None:
    assert split(join(host, 7363)) == (host, "7363")
