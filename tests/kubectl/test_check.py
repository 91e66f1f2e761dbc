"""Pre-flight checks: each judgement is pure, from plain objects to a line of the table."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
import yaml

from engram import __version__
from engram.spec.crd import build_crd
from engram.spec.job import FederatedIncrementalJob
from engram.spec.loader import parse_job
from engram_kubectl.check import findings, installed, network, quota, storage
from engram_kubectl.check.command import NO_UID, PLACEHOLDERS, settings_in_use
from engram_kubectl.check.facts import Facts
from engram_kubectl.check.findings import Level
from engram_kubectl.check.nodes import Node, check_nodes, obstacle, tolerates
from engram_kubectl.check.pods import PodSet, pod_sets
from engram_operator.manifests import Context, build_children
from engram_operator.model import Object
from tests.cluster.fake_nodes import Taint, build_node
from tests.control.builders import SETTINGS

EDGE = "node-role.kubernetes.io/edge"


def make(spec: str = "") -> FederatedIncrementalJob:
    """A job of one group."""
    written = yaml.safe_load(spec) or {}
    return parse_job(
        {
            "apiVersion": "engram.dev/v1alpha1",
            "kind": "FederatedIncrementalJob",
            "metadata": {"name": "digits", "namespace": "lab", "uid": NO_UID},
            "spec": {"workers": [{"name": "edge", "replicas": 2}], **written},
        }
    )


def sets_of(spec: str = "") -> tuple[PodSet, ...]:
    return pod_sets(build_children(make(spec), Context(SETTINGS, PLACEHOLDERS, ("192.0.2.1:7363",))))


def node(name: str = "fake-one", pods: list[Object] | None = None, **changes: Any) -> Node:
    return Node.of(build_node(name, **changes), [] if pods is None else pods)


def facts(**changes: Any) -> Facts:
    """A cluster that has nothing, and may all be read."""
    empty: dict[str, Any] = {
        "version": "v1.32.0",
        "namespace": {"metadata": {"name": "lab"}},
        "namespace_missing": False,
        "nodes": [],
        "pods": [],
        "quotas": [],
        "claims": {},
        "config_maps": {},
        "secrets": {},
        "storage_classes": [],
        "operators": [],
        "services": [],
        "dns": [],
    }
    return Facts(**{**empty, **changes})


# Nodes.


def test_a_plain_node_takes_everything() -> None:
    found = check_nodes(sets_of(), [node()])
    assert [(line.level, line.subject, line.said) for line in found] == [
        (Level.OK, "nodes: aggregator", "fake-one of 1 for 1"),
        (Level.OK, "nodes: edge", "fake-one of 1 for 2"),
    ]


@pytest.mark.parametrize(
    ("spec", "changes", "why"),
    [
        ("workers: [{name: edge, placement: edge}]", {}, f"without label {EDGE}"),
        ("workers: [{name: edge, placement: cloud}]", {"labels": {EDGE: ""}}, "kept out by the affinity"),
        (
            "workers: [{name: edge, gpus: {count: 2}}]",
            {"capacity": {"nvidia.com/gpu": "1"}},
            "with less than nvidia.com/gpu 2 in all",
        ),
        ("workers: [{name: edge, resources: {requests: {memory: 1Ti}}}]", {}, "with less than memory"),
        ("workers: [{name: edge, resources: {limits: {cpu: '65'}}}]", {}, "with less than cpu 65 in all"),
        ("", {"taints": [Taint("team", value="blue")]}, "tainted team:NoSchedule"),
        ("", {"taints": [Taint("team", effect="PreferNoSchedule")]}, ""),
        ("workers: [{name: edge, placement: edge}]", {"labels": {EDGE: ""}, "taints": [Taint(EDGE)]}, ""),
        (
            "workers: [{name: edge, gpus: {count: 1}}]",
            {"capacity": {"nvidia.com/gpu": "1"}, "taints": [Taint("nvidia.com/gpu")]},
            "",
        ),
        (
            "workers: [{name: edge, podTemplate: {spec: {nodeSelector: {disk: fast}}}}]",
            {},
            "without label disk=fast",
        ),
    ],
)
def test_why_a_node_takes_no_worker(spec: str, changes: dict[str, Any], why: str) -> None:
    found = obstacle(sets_of(spec)[1], node(**changes))
    assert found.startswith(why)
    assert bool(found) is bool(why)


def test_a_cordoned_node_takes_nothing() -> None:
    cordoned = build_node("fake-one")
    cordoned["spec"]["unschedulable"] = True
    (found, _) = check_nodes(sets_of(), [Node.of(cordoned, None)])
    assert (found.level, found.said, found.remedy) == (
        Level.FAIL,
        "none of 1 takes a pod: 1 cordoned",
        "kubectl uncordon a node",
    )


def test_nodes_that_do_not_fit_are_counted_by_reason() -> None:
    nodes = [node("fake-a"), node("fake-b"), node("fake-c", labels={EDGE: ""}, taints=[Taint("broken")])]
    found = check_nodes(sets_of("workers: [{name: edge, placement: edge}]"), nodes)[1]
    assert found.level is Level.FAIL
    assert found.said == f"none of 3 takes a pod: 2 without label {EDGE}; 1 tainted broken:NoSchedule"
    assert found.remedy.startswith("label the edge nodes")


def pod_on(name: str, cpu: str) -> Object:
    requests = {"resources": {"requests": {"cpu": cpu}}}
    return {"metadata": {"name": "x"}, "spec": {"nodeName": name, "containers": [requests, requests]}}


def test_what_is_used_leaves_room_for_fewer() -> None:
    busy = Node.of(build_node("fake-one"), [pod_on("fake-one", "20"), pod_on("fake-two", "20")])
    assert busy.free is not None
    assert busy.free["cpu"] == Decimal(24)
    found = check_nodes(
        sets_of("workers: [{name: edge, replicas: 3, resources: {requests: {cpu: '10'}}}]"), [busy]
    )[1]
    assert (found.level, found.said) == (
        Level.WARN,
        "fake-one would take its pods, but there is room for 2 of 3 now",
    )


def test_init_containers_count_where_they_ask_for_more() -> None:
    fetching = "{name: a, image: b, resources: {requests: {cpu: '3'}}}"
    template = f"{{spec: {{initContainers: [{fetching}]}}}}"
    spec = f"workers: [{{name: edge, resources: {{requests: {{cpu: '1'}}}}, podTemplate: {template}}}]"
    assert sets_of(spec)[1].requests()["cpu"] == Decimal(3)


def test_a_node_that_is_away_is_worth_a_warning() -> None:
    away = build_node("fake-one")
    away["status"]["conditions"][0]["status"] = "Unknown"
    found = check_nodes(sets_of(), [Node.of(away, None)])
    assert {line.level for line in found} == {Level.WARN}


def test_nodes_that_may_not_be_read_are_no_failure() -> None:
    (found,) = check_nodes(sets_of(), None)
    assert (found.level, found.said) == (Level.WARN, "not checked: nodes may not be read with these rights")


@pytest.mark.parametrize(
    ("toleration", "taint", "does"),
    [
        ({"operator": "Exists"}, {"key": "a", "effect": "NoSchedule"}, True),
        ({"key": "a", "operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute"}, True),
        (
            {"key": "a", "operator": "Exists", "effect": "NoExecute"},
            {"key": "a", "effect": "NoSchedule"},
            False,
        ),
        ({"key": "a", "value": "b"}, {"key": "a", "value": "b", "effect": "NoSchedule"}, True),
        ({"key": "a", "value": "b"}, {"key": "a", "value": "c", "effect": "NoSchedule"}, False),
        ({"key": "a"}, {"key": "a", "effect": "NoSchedule"}, True),
        ({}, {"key": "a", "effect": "NoSchedule"}, False),
    ],
)
def test_tolerations_are_read_as_the_scheduler_reads_them(
    toleration: Mapping[str, Any], taint: Mapping[str, Any], does: bool
) -> None:
    assert tolerates(toleration, taint) is does


# What is installed.


@pytest.mark.parametrize(
    ("version", "level"),
    [("v1.32.0+k3s1", Level.OK), ("v1.31.2", Level.OK), ("v1.30.9", Level.FAIL), ("", Level.WARN)],
)
def test_kubernetes_must_be_new_enough(version: str, level: Level) -> None:
    assert installed.check_kubernetes(version).level is level


def test_a_crd_that_lacks_a_field_is_named() -> None:
    schema = copy.deepcopy(build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    assert installed.crd_found(schema).level is Level.OK
    del schema["properties"]["spec"]["properties"]["report"]
    found = installed.crd_found(schema)
    assert found.level is Level.FAIL
    assert "does not know spec.report" in found.said
    assert installed.crd_found(None).level is Level.WARN


def deployment(version: str = __version__, ready: int = 1, **environ: str) -> Object:
    env = [{"name": f"ENGRAM_OPERATOR_{name.upper()}", "value": value} for name, value in environ.items()]
    return {
        "metadata": {
            "name": "engram-operator",
            "namespace": "engram-system",
            "labels": {"app.kubernetes.io/version": version},
        },
        "spec": {"template": {"spec": {"containers": [{"name": "operator", "env": env}]}}},
        "status": {"readyReplicas": ready},
    }


@pytest.mark.parametrize(
    ("operators", "level", "says"),
    [
        (None, Level.WARN, "may not be read"),
        ([], Level.WARN, "no Deployment of engram's operator"),
        ([deployment()], Level.OK, f"engram-system/engram-operator {__version__} is up"),
        ([deployment(ready=0)], Level.FAIL, "is not ready"),
        ([deployment("9.9.9")], Level.WARN, f"9.9.9 is up, this is {__version__}"),
        ([deployment(namespaces="other")], Level.FAIL, "none watches namespace lab (in engram-system)"),
        ([deployment(namespaces="other,lab")], Level.OK, "is up"),
        ([deployment(of_the_future="1")], Level.OK, "is up"),
    ],
)
def test_the_operator_must_be_up_and_look_here(
    operators: list[Object] | None, level: Level, says: str
) -> None:
    (found,) = installed.check_operator(operators, "lab")
    assert found.level is level
    assert says in found.said


def test_the_operators_settings_decide_the_image() -> None:
    operators = [
        deployment(namespaces="other", image="wrong:1"),
        deployment(image="registry.example/engram:2"),
    ]
    assert settings_in_use(facts(operators=operators), "lab").image == "registry.example/engram:2"
    assert settings_in_use(facts(operators=None), "lab").image == f"engram-runtime:{__version__}"


# Storage and images.


def volumes(spec: str, **changes: Any) -> list[findings.Found]:
    children = build_children(make(spec), Context(SETTINGS, PLACEHOLDERS, ("192.0.2.1:7363",)))
    return storage.check_volumes(pod_sets(children), children, facts(**changes))


def claim(
    phase: str = "Bound", modes: tuple[str, ...] = ("ReadWriteMany",), **spec: str
) -> dict[str, Object]:
    return {
        "data": {
            "metadata": {"name": "data"},
            "spec": {"accessModes": list(modes), **spec},
            "status": {"phase": phase},
        }
    }


CLAIM = "dataset: {name: npz, volume: {persistentVolumeClaim: {claimName: data}}, path: a.npz}"


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({"claims": claim()}, Level.OK, "Bound, ReadWriteMany"),
        ({"claims": claim(modes=("ReadWriteOnce",))}, Level.WARN, "all 2 pods of edge must be on one node"),
        ({"claims": claim("Lost")}, Level.FAIL, "Lost"),
        ({"claims": claim("Pending")}, Level.FAIL, "no PersistentVolume has been found"),
        ({"claims": {}}, Level.FAIL, "there is no PersistentVolumeClaim data"),
        ({"claims": None}, Level.WARN, "may not be read"),
        (
            {
                "claims": claim("Pending", storageClassName="late"),
                "storage_classes": [
                    {"metadata": {"name": "late"}, "volumeBindingMode": "WaitForFirstConsumer"}
                ],
            },
            Level.OK,
            "binds it when the first pod comes",
        ),
    ],
)
def test_claims_are_judged_by_their_phase(changes: dict[str, Any], level: Level, says: str) -> None:
    found = max(volumes(CLAIM, **changes), key=lambda line: line.level)
    assert found.level is level
    assert says in found.said


def test_a_job_with_bundled_data_mounts_only_what_comes_with_it() -> None:
    assert volumes("") == []


def test_host_paths_and_config_maps_are_told() -> None:
    (found,) = volumes("dataset: {name: npz, volume: {hostPath: {path: /srv/data}}, path: a.npz}")
    assert (found.level, found.subject) == (Level.WARN, "volume: /srv/data")
    spec = "dataset: {name: npz, volume: {configMap: {name: small}}, path: a.npz}"
    assert volumes(spec)[0].level is Level.FAIL
    assert volumes(spec, config_maps={"small": {}})[0].level is Level.OK


@pytest.mark.parametrize(
    ("spec", "classes", "level"),
    [
        ("", [], Level.WARN),
        ("aggregator: {checkpoint: {size: 1Gi}}", [], Level.FAIL),
        ("aggregator: {checkpoint: {size: 1Gi}}", None, Level.WARN),
        ("aggregator: {checkpoint: {size: 1Gi, storageClassName: fast}}", ["slow"], Level.FAIL),
        ("aggregator: {checkpoint: {size: 1Gi, storageClassName: fast}}", ["fast"], Level.OK),
        ("aggregator: {checkpoint: {volume: {persistentVolumeClaim: {claimName: a}}}}", [], Level.OK),
    ],
)
def test_the_checkpoint_needs_a_place(spec: str, classes: list[str] | None, level: Level) -> None:
    there = None if classes is None else [{"metadata": {"name": name}} for name in classes]
    assert storage.check_checkpoint(make(spec), facts(storage_classes=there)).level is level


@pytest.mark.parametrize(
    ("spec", "levels"),
    [
        ("{aggregation: {compression: float16}}", []),
        ("{aggregation: {compression: int8}}", [Level.WARN]),
        (
            "{aggregation: {compression: topk}, workers: [{name: edge, state: {volume: {emptyDir: {}}}}]}",
            [Level.WARN],
        ),
        (
            "{aggregation: {compression: int8}, "
            "workers: [{name: edge, state: {volume: {hostPath: {path: /var/lib/engram}}}}]}",
            [Level.OK],
        ),
    ],
)
def test_what_compression_owes_needs_a_place(spec: str, levels: list[Level]) -> None:
    assert [found.level for found in storage.check_worker_state(make(spec))] == levels


def test_the_default_class_is_found_by_its_annotation() -> None:
    default = {"metadata": {"name": "std", "annotations": {storage.DEFAULT_CLASS: "true"}}}
    assert storage.claim_found("1Gi", "", [default]).said == "a claim of 1Gi in class std"


def test_images_are_told_where_they_are() -> None:
    having = build_node("fake-one")
    having["status"]["images"] = [{"names": ["registry.example/engram-runtime:test"]}]
    (found,) = storage.check_images(sets_of(), [Node.of(having, None)])
    assert (found.level, found.said) == (Level.OK, "engram-runtime:test is on fake-one")
    (missing,) = storage.check_images(sets_of(), [node()])
    assert missing.level is Level.WARN


def test_pull_secrets_must_be_there_and_of_their_type() -> None:
    sets = sets_of("imagePullSecrets: [{name: pull}]")
    assert storage.check_pull_secrets(sets, facts())[0].level is Level.FAIL
    assert storage.check_pull_secrets(sets, facts(secrets=None))[0].level is Level.WARN
    opaque = {"pull": {"type": "Opaque"}}
    assert storage.check_pull_secrets(sets, facts(secrets=opaque))[0].said == "is of type Opaque"
    right = {"pull": {"type": "kubernetes.io/dockerconfigjson"}}
    assert storage.check_pull_secrets(sets, facts(secrets=right))[0].level is Level.OK


def test_only_the_secrets_that_the_job_names_are_asked_for() -> None:
    spec = (
        "{imagePullSecrets: [{name: pull}], "
        "dataset: {name: npz, volume: {secret: {secretName: data}}, path: a.npz}}"
    )
    children = build_children(make(spec), Context(SETTINGS, PLACEHOLDERS, ("192.0.2.1:7363",)))
    assert storage.secret_names(pod_sets(children), children) == ["pull", "data"]


# Network.


@pytest.mark.parametrize(
    ("spec", "nodes", "level", "says"),
    [
        ("", [], Level.OK, "digits-aggregation.lab.svc.cluster.local:7363"),
        ("aggregator: {expose: {type: NodePort, port: 30100}}", [], Level.FAIL, "no node outside the edge"),
        ("aggregator: {expose: {type: NodePort, port: 30100}}", ["fake-one"], Level.OK, "192.0.2.1:30100"),
        ("aggregator: {expose: {type: NodePort}}", ["fake-one"], Level.OK, "Kubernetes chooses the port"),
        (
            "aggregator: {nodeName: gone, expose: {type: HostPort}}",
            ["fake-one"],
            Level.FAIL,
            "there is no node gone",
        ),
    ],
)
def test_the_endpoint_is_worked_out_as_the_operator_does(
    spec: str, nodes: list[str], level: Level, says: str
) -> None:
    there = [build_node(name) for name in nodes]
    found = network.check_endpoint(make(spec), facts(nodes=there), SETTINGS)
    assert found.level is level
    assert says in found.said


def service(port: int, name: str = "web") -> Object:
    return {"metadata": {"namespace": "lab", "name": name}, "spec": {"ports": [{"nodePort": port}]}}


@pytest.mark.parametrize(
    ("port", "services", "level"),
    [
        (30100, [], Level.OK),
        (30100, [service(30100, "digits-node-port")], Level.OK),
        (30100, [service(30100)], Level.FAIL),
        (80, [], Level.WARN),
        (30100, None, Level.WARN),
    ],
)
def test_a_node_port_must_be_free(port: int, services: list[Object] | None, level: Level) -> None:
    job = make(f"aggregator: {{expose: {{type: NodePort, port: {port}, address: 203.0.113.5}}}}")
    (found,) = network.check_port(job, facts(services=services))
    assert found.level is level


def test_a_host_port_must_be_free_on_its_node() -> None:
    job = make("aggregator: {nodeName: fake-one, expose: {type: HostPort}}")
    there = pod_on("fake-one", "1")
    there["spec"]["containers"][0]["ports"] = [{"containerPort": 1, "hostPort": 7363}]
    there["metadata"]["namespace"] = "lab"
    (found,) = network.check_port(job, facts(pods=[there]))
    assert (found.level, found.said) == (Level.FAIL, "7363 of node fake-one is taken by pod lab/x")
    there["spec"]["nodeName"] = "fake-two"
    assert network.check_port(job, facts(pods=[there]))[0].level is Level.OK
    assert network.check_port(make(), facts()) == []


def test_edge_workers_need_an_address() -> None:
    edge = node("fake-edge", labels={EDGE: ""})
    assert network.check_edge(make(), [node()]) == []
    assert network.check_edge(make(), [edge])[0].said.startswith("edge, if on fake-edge,")
    assert network.check_edge(make("workers: [{name: a, placement: edge}]"), None)[0].level is Level.WARN
    assert (
        network.check_edge(make("aggregator: {expose: {type: ClusterIP, address: 203.0.113.5}}"), [edge])
        == []
    )


def test_dns_is_needed_for_a_name_only() -> None:
    named = "aggregator: {expose: {type: NodePort, address: 203.0.113.5, port: 30100}}"
    assert network.check_dns(make(named), facts(), SETTINGS).level is Level.OK
    assert network.check_dns(make(), facts(), SETTINGS).level is Level.WARN
    assert network.check_dns(make(), facts(dns=None), SETTINGS).level is Level.WARN
    assert (
        network.check_dns(make(), facts(dns=[{"metadata": {"name": "kube-dns"}}]), SETTINGS).level is Level.OK
    )


# Namespace and quota.


def test_the_namespace_says_its_level() -> None:
    level = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    assert quota.check_namespace(facts(namespace=level), "lab").said.endswith("restricted")
    assert quota.check_namespace(facts(namespace=None, namespace_missing=True), "lab").level is Level.FAIL
    assert quota.check_namespace(facts(namespace=None), "lab").level is Level.WARN
    going = {"metadata": {}, "status": {"phase": "Terminating"}}
    assert quota.check_namespace(facts(namespace=going), "lab").level is Level.FAIL


def a_quota(hard: dict[str, str], used: dict[str, str]) -> Object:
    return {"metadata": {"name": "team"}, "status": {"hard": hard, "used": used}}


@pytest.mark.parametrize(
    ("hard", "used", "short"),
    [
        ({"pods": "3"}, {"pods": "0"}, ""),
        ({"pods": "3"}, {"pods": "1"}, "pods: 3 needed, 2 of 3 free"),
        ({"requests.cpu": "4"}, {"requests.cpu": "1"}, "requests.cpu: 4 needed, 3 of 4 free"),
        ({"cpu": "4"}, {}, ""),
        ({"limits.memory": "1Gi"}, {}, "limits.memory: 2147483648 needed"),
        ({"services": "0"}, {}, ""),
    ],
)
def test_a_quota_must_have_room_for_all_pods_at_once(
    hard: dict[str, str], used: dict[str, str], short: str
) -> None:
    sets = sets_of(
        "workers: [{name: edge, replicas: 2, resources: {requests: {cpu: '2'}, limits: {memory: 1Gi}}}]"
    )
    (found,) = quota.check_quota(sets, facts(quotas=[a_quota(hard, used)]))
    assert found.said.startswith(short) if short else found.level is Level.OK
    assert found.level is (Level.FAIL if short else Level.OK)


def test_the_last_line_and_the_code_say_whether_it_would_run() -> None:
    lines = [findings.ok("a", "b"), findings.warn("c", "d")]
    assert findings.summary(lines) == "1 ok, 1 warn, 0 fail. Nothing keeps the job from running."
    assert findings.exit_code(lines) == 0
    lines.append(findings.fail("e", "f"))
    assert findings.summary(lines) == "1 ok, 1 warn, 1 fail. The job would not run."
    assert findings.exit_code(lines) == 1
