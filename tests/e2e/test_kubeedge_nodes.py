"""What a node of KubeEdge's is to a pod: the claims that docs/kubeedge.md makes of the platform itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engram.spec.names import Label
from tests.cluster import binaries, faults
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.cluster.node_level import NodeLevel
from tests.cluster.waiting import NotYet, until
from tests.e2e.jobs import node_of
from tests.e2e.test_cluster import STAYS, Pods, pods, service, wait_ready  # noqa: F401  the fixture pods

pytestmark = [pytest.mark.nodes, pytest.mark.kubeedge, pytest.mark.timeout(300)]

EDGE = ("edge1", "edge2")
STARTS_WITHIN = 150.0
"""Seconds: a second, or a minute more for each answer that edgecore loses (docs/kubeedge.md)."""


def test_edge_nodes_are_edgecores_and_the_cloud_has_a_kubelet(api: Api) -> None:
    release = binaries.SOURCES["edgecore"].version
    found = {item["metadata"]["name"]: item for item in api.list("Node")}

    versions = {name: item["status"]["nodeInfo"]["kubeletVersion"] for name, item in found.items()}
    assert "kubeedge" not in versions["cloud"]
    for name in EDGE:
        assert versions[name].endswith(f"-kubeedge-{release}"), versions
        assert found[name]["metadata"]["labels"][Label.EDGE_NODE] == ""
        assert [taint["key"] for taint in found[name]["spec"]["taints"]] == [Label.EDGE_NODE]


def test_edge_pods_reach_node_and_host_ports_and_neither_names_nor_cluster_addresses(
    api: Api,
    namespace: str,
    level: NodeLevel,
) -> None:
    free = Pods(api, namespace)  # host ports are beyond `restricted`
    free.start("web", "serve", ":8080", node="cloud", ports=[{"containerPort": 8080, "hostPort": 7365}])
    made = api.create(service("web", namespace, type="NodePort"))["spec"]
    cloud, port = level.nodes["cloud"].address, made["ports"][0]["nodePort"]
    free.wait("web", "Running")

    free.start("by-node-port", "get", f"http://{cloud}:{port}", "20", node="edge1")
    free.start("by-host-port", "get", f"http://{cloud}:7365", "20", node="edge2")
    free.start("by-name", "get", f"http://web.{namespace}.svc.cluster.local", "1", node="edge1")
    free.start("by-cluster-address", "get", f"http://{made['clusterIP']}", "1", node="edge2")

    for name, phase in (
        ("by-node-port", "Succeeded"),
        ("by-host-port", "Succeeded"),
        ("by-name", "Failed"),
        ("by-cluster-address", "Failed"),
    ):
        free.wait(name, phase, seconds=STARTS_WITHIN)


def test_logs_of_edge_pods_are_out_of_reach_without_edge_stream(pods: Pods, kubectl: Kubectl) -> None:  # noqa: F811
    pods.start("one", "say", "hello", node="edge1")
    pods.wait("one", "Succeeded", seconds=STARTS_WITHIN)

    with pytest.raises(KubectlError, match="connection refused"):
        kubectl.run("logs", "one")


@pytest.mark.parametrize("name", EDGE)
def test_containers_go_on_while_edgecore_or_cloudcore_is_away(
    pods: Pods,  # noqa: F811
    api: Api,
    level: NodeLevel,
    name: str,
) -> None:
    pods.start("worker", "serve", ":8080", node=name, tolerations=STAYS)
    before = pods.wait("worker", "Running", seconds=STARTS_WITHIN)
    fault = faults.agent_ended(level, name) if name == "edge1" else faults.cloudcore_down(level)

    with fault:
        wait_ready(api, name, "Unknown")
        url = f"http://{before['status']['podIP']}:8080"
        level.nodes["cloud"].run([binaries.find("probe"), "get", url, "5"])

    after = pods.wait("worker", "Running")
    assert container_of(after) == container_of(before)


def test_a_power_cut_ends_the_pods_of_an_edgecore_node_and_it_returns(
    pods: Pods,  # noqa: F811
    level: NodeLevel,
) -> None:
    pods.start("worker", "sleep", node="edge1", tolerations=STAYS)
    pods.wait("worker", "Running", seconds=STARTS_WITHIN)

    with faults.power_cut(level, "edge1"):
        assert not level.nodes["edge1"].on

    pods.wait("worker", "Failed", seconds=90)
    pods.start("next", "say", "hello", node="edge1")
    assert node_of(pods.wait("next", "Succeeded", seconds=STARTS_WITHIN)) == "edge1"


def container_of(pod: Object) -> tuple[str, int]:
    """Return id and restarts of a pod's container."""
    status = pod["status"]["containerStatuses"][0]
    return status["containerID"], status["restartCount"]


def gone(pods: Pods, name: str) -> Callable[[], bool]:  # noqa: F811
    """Return the condition that a pod does not exist any more."""

    def is_gone() -> bool:
        try:
            pods.get(name)
        except ApiError as error:
            return error.code == 404
        raise NotYet("it is still there")

    return is_gone


def test_a_pod_deleted_while_its_node_is_cut_off_goes_when_the_node_is_back(
    pods: Pods,  # noqa: F811
    api: Api,
    level: NodeLevel,
) -> None:
    pods.start("worker", "sleep", node="edge2", tolerations=STAYS)
    pods.wait("worker", "Running", seconds=STARTS_WITHIN)

    with faults.cable_cut(level, "edge2"):
        wait_ready(api, "edge2", "Unknown")
        api.delete("Pod", "worker", pods.namespace)
        assert pods.get("worker")["metadata"]["deletionTimestamp"]

    until(gone(pods, "worker"), "the end of pod worker", seconds=STARTS_WITHIN)
