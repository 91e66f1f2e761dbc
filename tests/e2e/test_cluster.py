"""The cluster of the tests itself: what the other tests on nodes take for granted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from engram.spec.names import Label
from tests.cluster import faults, gpu
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.images import PROBE_IMAGE
from tests.cluster.kubectl import Kubectl
from tests.cluster.node_level import NAMES, NodeLevel
from tests.cluster.waiting import NotYet, until

pytestmark = pytest.mark.nodes

EDGE = {"key": Label.EDGE_NODE, "operator": "Exists"}
GONE_AT_ONCE = [
    {
        "key": f"node.kubernetes.io/{key}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 1,
    }
    for key in ("not-ready", "unreachable")
]
STAYS = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute"}
    for key in ("not-ready", "unreachable")
]


def pod(
    name: str,
    namespace: str,
    arguments: Sequence[str],
    *,
    node: str = "",
    ports: Sequence[Object] = (),
    limits: dict[str, str] | None = None,
    tolerations: Sequence[Object] = (),
) -> Object:
    """Return a pod that runs the probe under Pod Security `restricted`, on `node` or anywhere."""
    container: dict[str, Any] = {
        "name": "main",
        "image": PROBE_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": list(arguments),
        "ports": list(ports),
        "resources": {"limits": {"cpu": "200m", "memory": "64Mi", **(limits or {})}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 2,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [EDGE, *tolerations],
        "containers": [container],
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": spec,
    }


def service(name: str, namespace: str, **spec: Any) -> Object:
    """Return a Service on port 80 of the pod of the same name, which serves at 8080."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }


class Pods:
    """Pods of one namespace, and waiting for them."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def start(self, name: str, *arguments: str, **options: Any) -> None:
        """Create a pod of the probe; options as `pod`."""
        self.api.create(pod(name, self.namespace, arguments, **options))

    def get(self, name: str) -> Object:
        """Return a pod."""
        return self.api.get("Pod", name, self.namespace)

    def wait(self, name: str, phase: str, seconds: float = 30) -> Object:
        """Wait for a phase; return the pod."""

        def reached() -> Object | None:
            found = self.get(name)
            if found["status"]["phase"] != phase:
                raise NotYet(f"it is {found['status']}")
            return found

        return until(reached, f"pod {name} {phase}", seconds=seconds)


@pytest.fixture
def pods(api: Api, namespace: str) -> Pods:
    """Pods in the test's namespace, which enforces `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.patch("Namespace", namespace, {"metadata": {"labels": labels}})
    return Pods(api, namespace)


def ready(api: Api, name: str) -> str:
    """Return the status of a node's Ready condition."""
    conditions = api.get("Node", name)["status"]["conditions"]
    return next(str(item["status"]) for item in conditions if item["type"] == "Ready")


def wait_ready(api: Api, name: str, status: str, seconds: float = 40) -> None:
    """Wait until a node's Ready condition has this status."""

    def reached() -> bool:
        found = ready(api, name)
        if found != status:
            raise NotYet(f"it is {found}")
        return True

    until(reached, f"Ready={status} of node {name}", seconds=seconds)


def test_nodes_are_those_of_the_cloud_and_of_the_edge(api: Api, level: NodeLevel) -> None:
    nodes = {item["metadata"]["name"]: item for item in api.list("Node")}

    assert sorted(nodes) == sorted(NAMES)
    for name, node in nodes.items():
        edge = name.startswith("edge")
        assert ready(api, name) == "True"
        assert (Label.EDGE_NODE in node["metadata"]["labels"]) == edge
        taints = [taint["key"] for taint in node["spec"].get("taints", ())]
        assert taints == ([Label.EDGE_NODE] if edge else [])


@pytest.mark.parametrize("node", NAMES)
def test_a_pod_ends_succeeded_with_its_words_in_the_log(pods: Pods, kubectl: Kubectl, node: str) -> None:
    pods.start("one", "say", "hello from", node, node=node)

    found = pods.wait("one", "Succeeded")

    assert found["spec"]["nodeName"] == node
    assert kubectl.run("logs", "one") == f"hello from {node}\n"


def test_a_pod_without_toleration_stays_off_the_edge(pods: Pods, api: Api, namespace: str) -> None:
    item = pod("one", namespace, ["say", "hello"], node="edge1")
    item["spec"]["tolerations"] = []
    api.create(item)

    def refused() -> str:
        conditions = pods.get("one")["status"].get("conditions", ())
        return next((c["message"] for c in conditions if c.get("reason") == "Unschedulable"), "")

    assert f"untolerated taint {{{Label.EDGE_NODE}: }}" in until(refused, "the scheduler's refusal")


def test_a_service_is_reached_by_name_in_the_cloud_and_by_node_port_from_the_edge(
    pods: Pods, api: Api, namespace: str, level: NodeLevel
) -> None:
    pods.start("web", "serve", ":8080", node="cloud")
    found = api.create(service("web", namespace, type="NodePort"))["spec"]
    address, port = found["clusterIP"], found["ports"][0]["nodePort"]

    pods.start("by-address", "get", f"http://{address}", "20", node="cloud")
    pods.start("by-name", "get", "http://web", "20", node="cloud")
    pods.start("by-full-name", "get", f"http://web.{namespace}.svc.cluster.local", "20", node="cloud")
    pods.start("by-port", "get", f"http://{level.nodes['cloud'].address}:{port}", "20", node="edge1")

    for name in ("by-address", "by-name", "by-full-name", "by-port"):
        pods.wait(name, "Succeeded")


def test_an_edge_pod_knows_no_service_name_and_learns_so_at_once(
    pods: Pods, api: Api, namespace: str, kubectl: Kubectl
) -> None:
    pods.start("web", "serve", ":8080", node="cloud")
    api.create(service("web", namespace))
    began = time.monotonic()
    pods.start("by-name", "get", f"http://web.{namespace}.svc.cluster.local", "1", node="edge1")

    pods.wait("by-name", "Failed")

    assert time.monotonic() - began < 15
    assert "web" in kubectl.run("logs", "by-name")


def test_a_host_port_of_the_cloud_is_reached_from_the_edge(
    api: Api, namespace: str, level: NodeLevel
) -> None:
    pods = Pods(api, namespace)  # host ports are beyond `restricted`
    pods.start("web", "serve", ":8080", node="cloud", ports=[{"containerPort": 8080, "hostPort": 7363}])
    pods.start("from-edge", "get", f"http://{level.nodes['cloud'].address}:7363", "20", node="edge2")

    pods.wait("from-edge", "Succeeded")


def test_a_host_path_below_srv_belongs_to_one_node(
    api: Api, namespace: str, kubectl: Kubectl, level: NodeLevel
) -> None:
    for name, node in level.nodes.items():
        (node.root / "srv" / "whose").write_text(f"of {name}", encoding="utf-8")
        item = pod(name, namespace, ["read", "/data/whose"], node=name)
        item["spec"]["volumes"] = [{"name": "data", "hostPath": {"path": "/srv", "type": "Directory"}}]
        item["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        api.create(item)

    for name in NAMES:
        Pods(api, namespace).wait(name, "Succeeded")
        assert kubectl.run("logs", name) == f"of {name}"


def test_the_api_server_reaches_services_and_containers(
    pods: Pods, api: Api, namespace: str, kubectl: Kubectl
) -> None:
    pods.start("web", "serve", ":8080", node="cloud")
    api.create(service("web", namespace))
    path = f"/api/v1/namespaces/{namespace}/services/web:80/proxy/"

    def through_the_server() -> str:
        try:
            return str(api.ask("GET", path).body)
        except ApiError as error:
            raise NotYet(str(error)) from None

    assert until(through_the_server, "the Service through the API server") == "web"
    assert kubectl.run("exec", "web", "--", "/probe", "say", "inside") == "inside\n"


def test_a_pod_out_of_memory_is_killed_and_says_so(pods: Pods) -> None:
    pods.start("eater", "eat", "200", limits={"memory": "32Mi"})

    ended = pods.wait("eater", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]

    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_gpu_pod_goes_where_the_gpu_is(pods: Pods, api: Api, level: NodeLevel) -> None:
    gpu.give(api, "edge2", 1)
    try:
        with faults.agent_ended(level, "edge2"):
            pods.start("training", "say", "trained", limits={gpu.RESOURCE: "1"})
        assert pods.wait("training", "Succeeded")["spec"]["nodeName"] == "edge2"
    finally:
        gpu.give(api, "edge2", 0)


def test_containers_go_on_without_kubelet(pods: Pods, api: Api, level: NodeLevel) -> None:
    pods.start("web", "serve", ":8080", node="edge1", tolerations=STAYS)
    before = pods.wait("web", "Running")

    with faults.agent_ended(level, "edge1"):
        wait_ready(api, "edge1", "Unknown")
        address = before["status"]["podIP"]
        pods.start("visitor", "get", f"http://{address}:8080", "20", node="cloud")
        pods.wait("visitor", "Succeeded")

    assert pods.get("web")["metadata"]["uid"] == before["metadata"]["uid"]
    container = pods.wait("web", "Running")["status"]["containerStatuses"][0]
    assert container["containerID"] == before["status"]["containerStatuses"][0]["containerID"]
    assert container["restartCount"] == 0


def test_a_cut_cable_loses_the_node_and_a_pod_that_tolerates_it_stays(
    pods: Pods, api: Api, level: NodeLevel
) -> None:
    pods.start("stays", "sleep", node="edge2", tolerations=STAYS)
    pods.start("goes", "sleep", node="edge2", tolerations=GONE_AT_ONCE)
    before = pods.wait("stays", "Running")
    pods.wait("goes", "Running")

    with faults.cable_cut(level, "edge2"):
        wait_ready(api, "edge2", "Unknown")
        until(lambda: pods.get("goes")["metadata"].get("deletionTimestamp"), "the eviction of pod goes")

    until(_gone(pods, "goes"), "the end of pod goes", seconds=60)
    assert pods.get("stays")["metadata"]["uid"] == before["metadata"]["uid"]
    assert pods.wait("stays", "Running")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_after_a_power_cut_the_node_returns_and_its_pods_have_failed(pods: Pods, level: NodeLevel) -> None:
    pods.start("worker", "sleep", node="edge1", tolerations=STAYS)
    pods.wait("worker", "Running")

    with faults.power_cut(level, "edge1"):
        assert not level.nodes["edge1"].on

    pods.wait("worker", "Failed", seconds=60)
    pods.start("next", "say", "hello", node="edge1")
    pods.wait("next", "Succeeded")


def test_the_cloud_serves_again_after_a_power_cut(
    pods: Pods, api: Api, namespace: str, level: NodeLevel
) -> None:
    with faults.power_cut(level, "cloud"):
        pass

    pods.start("web", "serve", ":8080", node="cloud")
    api.create(service("web", namespace))
    pods.start("by-name", "get", "http://web", "20", node="cloud")
    pods.wait("by-name", "Succeeded")


def test_pods_outlive_the_api_server(pods: Pods, level: NodeLevel) -> None:
    pods.start("worker", "sleep", node="edge1")
    before = pods.wait("worker", "Running")

    with faults.api_server_down(level):
        pass

    assert pods.get("worker")["metadata"]["uid"] == before["metadata"]["uid"]
    pods.start("next", "say", "hello", node="edge1")
    pods.wait("next", "Succeeded")


def test_a_drained_pod_is_told_by_sigterm_and_marked_as_disrupted(
    pods: Pods, api: Api, level: NodeLevel
) -> None:
    item = pod("worker", pods.namespace, ["sleep"], node="edge1")
    item["metadata"]["finalizers"] = ["engram.dev/test"]  # so that its end can be read
    api.create(item)
    pods.wait("worker", "Running")
    try:
        with faults.drained(level, "edge1"):
            status = pods.wait("worker", "Failed")["status"]
    finally:
        api.patch("Pod", "worker", {"metadata": {"finalizers": None}}, namespace=pods.namespace)

    disruption = next(item for item in status["conditions"] if item["type"] == "DisruptionTarget")
    assert disruption["reason"] == "EvictionByEvictionAPI"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 75


def _gone(pods: Pods, name: str) -> Callable[[], bool]:
    """Return the condition that a pod does not exist any more."""

    def gone() -> bool:
        try:
            pods.get(name)
        except ApiError as error:
            return error.code == 404
        return False

    return gone
