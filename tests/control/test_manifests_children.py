"""Names, labels, owners, determinism; ConfigMap, Secrets, Services and the claim."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace

import pytest

from engram.spec import load_yaml, parse_job
from engram.spec.tokens import worker_token
from engram_operator.manifests import as_started, build_children, checkpoint_is_durable, with_checkpoint
from engram_operator.model import Credentials, Object
from engram_operator.settings import Settings
from tests.control.building import (
    CREDENTIALS,
    SETTINGS,
    UID,
    build,
    canonical,
    example,
    make_context,
    make_job,
    pod_of,
    volumes_of,
)

EXAMPLES = ("01-digits.yaml", "02-fashion-mnist.yaml", "05-edge-and-gpu-workers.yaml")
LONGEST = "a" * 40
GROUPS = f"workers: [{{name: {'b' * 12}, replicas: 1000}}, {{name: edge}}]"
NODE_PORT = "aggregator: {expose: {type: NodePort, address: cloud.example.com, port: 30363}}"


def kinds(objects: tuple[Object, ...]) -> list[str]:
    return [f"{item['kind']}/{item['metadata']['name']}" for item in objects]


def leaves(value: object) -> Iterator[object]:
    yield value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)


def test_the_children_of_a_job() -> None:
    assert kinds(build(make_job()).all) == [
        "ConfigMap/digits-spec",
        "Secret/digits-credentials",
        "Secret/digits-worker-tokens",
        "Service/digits-aggregation",
        "Job/digits-aggregation",
        "Job/digits-edge",
    ]


def test_a_node_port_and_a_claim_add_one_object_each() -> None:
    job = make_job("aggregator: {expose: {type: NodePort, address: a.b}, checkpoint: {size: 1Gi}}")
    added = set(kinds(build_children(job, make_context(job)).all)) - set(kinds(build(make_job()).all))
    assert added == {"Service/digits-node-port", "PersistentVolumeClaim/digits-checkpoint"}


def test_the_longest_names_are_still_names_of_pods_and_services() -> None:
    children = build(make_job(GROUPS, name=LONGEST))
    for item in children.all:
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", item["metadata"]["name"])
    assert len(f"{LONGEST}-{'b' * 12}-999") <= 63  # a pod's host name
    for item in (*children.jobs, children.service):
        for value in item["metadata"]["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)


@pytest.mark.parametrize("file", EXAMPLES)
def test_every_child_says_whose_it_is(file: str) -> None:
    job = example(file)
    for item in build(job).all:
        meta = item["metadata"]
        assert meta["namespace"] == job.metadata.namespace
        assert meta["labels"]["engram.dev/job"] == job.name
        assert meta["labels"]["engram.dev/job-uid"] == UID
        assert meta["labels"]["engram.dev/role"] in ("aggregator", "worker")
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "engram-operator"
        assert meta["ownerReferences"] == [
            {
                "apiVersion": "engram.dev/v1alpha1",
                "kind": "FederatedIncrementalJob",
                "name": job.name,
                "uid": UID,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]


def test_worker_jobs_and_their_pods_name_their_group() -> None:
    for name, job in build(example("05-edge-and-gpu-workers.yaml")).workers.items():
        for meta in (job["metadata"], job["spec"]["template"]["metadata"]):
            assert meta["labels"]["engram.dev/group"] == name
            assert meta["labels"]["engram.dev/role"] == "worker"


@pytest.mark.parametrize("file", EXAMPLES)
def test_the_same_job_gives_the_same_bytes(file: str) -> None:
    first, second = build(example(file)), build(example(file))
    assert [repr(item) for item in first.all] == [repr(item) for item in second.all]


def test_objects_are_plain_data_that_share_nothing() -> None:
    job = example("05-edge-and-gpu-workers.yaml")
    children = build(job)
    plain = {dict, list, str, int, bool}
    for item in children.all:
        assert {type(value) for value in leaves(item)} <= plain
    pod_of(children.workers["camera"])["volumes"].clear()
    assert canonical(build(job).workers["camera"]) != canonical(children.workers["camera"])


def test_the_config_map_holds_what_pods_read() -> None:
    job = make_job("workers: [{name: edge, replicas: 2}]")
    data = build(job).config_map["data"]
    assert sorted(data) == ["ca.crt", "digest", "endpoints", "endpoints-cloud", "job.yaml", "replicas"]
    read = parse_job(load_yaml(data["job.yaml"], "job.yaml"), "job.yaml")
    assert read == job
    assert read.digest() == job.digest()
    assert data["ca.crt"] == CREDENTIALS.ca
    assert data["endpoints"] == "digits-aggregation.lab.svc.cluster.local:7363\n"


def test_workers_that_rest_keep_their_share_and_their_token() -> None:
    job = make_job("workers: [{name: edge, replicas: 3}, {name: gpu, replicas: 1}]")
    children = build_children(job, replace(make_context(job), replicas={"edge": 1}))
    data = children.config_map["data"]
    assert data["replicas"] == "edge 1\ngpu 1\n"
    assert parse_job(load_yaml(data["job.yaml"], "")).spec.workers[0].replicas == 3
    assert children.workers["edge"]["spec"]["parallelism"] == 1
    assert children.workers["edge"]["spec"]["completions"] == 1
    assert len(children.worker_tokens["data"]) == 4


@pytest.mark.parametrize(
    "path",
    ["1e-3", "on", "a: b # c", "\U0001f6d1/é", 'tab\tquote"', "\x7f\x85\u2028\ufeff", "{{ x }}", "\\u0041"],
)
def test_any_text_survives_the_config_map(path: str) -> None:
    job = make_job()
    data_set = job.spec.dataset.model_copy(update={"path": path})
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"dataset": data_set})})
    config = build(job).config_map
    assert parse_job(load_yaml(config["data"]["job.yaml"], "job.yaml")).spec.dataset.path == path
    assert as_started(make_job(), config)[0].spec.dataset.path == path


def test_cloud_groups_try_the_service_first_and_others_what_is_exposed_only() -> None:
    job = make_job(f"{NODE_PORT}\nworkers: [{{name: a, placement: cloud}}, {{name: b, placement: edge}}]")
    children = build(job)
    data = children.config_map["data"]
    assert data["endpoints"] == "cloud.example.com:30363\n"
    assert data["endpoints-cloud"].splitlines() == [
        "digits-aggregation.lab.svc.cluster.local:7363",
        "cloud.example.com:30363",
    ]
    for group, key in (("a", "endpoints-cloud"), ("b", "endpoints")):
        items = volumes_of(children.workers[group])["spec"]["configMap"]["items"]
        assert {"key": key, "path": "endpoints"} in items


def test_suspension_does_not_write_the_config_map() -> None:
    assert build(make_job("suspend: true")).config_map == build(make_job()).config_map


def test_secrets_hold_credentials_and_a_token_for_each_worker() -> None:
    children = build(make_job("workers: [{name: edge, replicas: 2}, {name: gpu, replicas: 1}]"))
    credentials = {key: b64decode(value).decode() for key, value in children.credentials["data"].items()}
    assert Credentials.from_data(credentials) == CREDENTIALS
    tokens = {key: b64decode(value).decode() for key, value in children.worker_tokens["data"].items()}
    assert sorted(tokens) == ["trainworker-edge-0", "trainworker-edge-1", "trainworker-gpu-0"]
    for name, token in tokens.items():
        assert token == worker_token(bytes(32), UID, name)


def test_the_service_selects_the_aggregator_of_this_very_job() -> None:
    service = build(make_job()).service
    assert service["spec"] == {
        "type": "ClusterIP",
        "selector": {
            "engram.dev/job": "digits",
            "engram.dev/job-uid": UID,
            "engram.dev/role": "aggregator",
        },
        "ports": [
            {"name": "tcp-0", "port": 7363, "targetPort": "tcp-0", "protocol": "TCP"},
            {"name": "http-metrics", "port": 9464, "targetPort": "http-metrics", "protocol": "TCP"},
        ],
    }


def test_a_node_port_opens_the_federation_port_alone() -> None:
    children = build(make_job(NODE_PORT))
    assert children.node_port is not None
    port = {"name": "tcp-0", "port": 7363, "targetPort": "tcp-0", "protocol": "TCP"}
    assert children.node_port["spec"]["type"] == "NodePort"
    assert children.node_port["spec"]["ports"] == [{**port, "nodePort": 30363}]
    assert children.service["spec"]["type"] == "ClusterIP"
    chosen = make_job("aggregator: {expose: {type: NodePort, address: a.b}}")
    free = build_children(chosen, make_context(chosen)).node_port
    assert free is not None
    assert free["spec"]["ports"] == [port]


@pytest.mark.parametrize("type_", ["ClusterIP", "HostPort"])
def test_other_exposure_needs_no_second_service(type_: str) -> None:
    assert build(make_job(f"aggregator: {{nodeName: node1, expose: {{type: {type_}}}}}")).node_port is None


CLAIM = {"persistentVolumeClaim": {"claimName": "digits-checkpoint"}}
DEFAULTED = replace(SETTINGS, checkpoint_size="5Gi", checkpoint_storage_class="fast")


@pytest.mark.parametrize(
    ("checkpoint", "settings", "source", "size", "storage_class", "durable"),
    [
        ("{}", SETTINGS, {"emptyDir": {}}, None, None, False),
        ("{size: 2Gi}", SETTINGS, CLAIM, "2Gi", None, True),
        ("{size: 2Gi, storageClassName: slow}", SETTINGS, CLAIM, "2Gi", "slow", True),
        ("{}", DEFAULTED, CLAIM, "5Gi", "fast", True),
        ("{size: 2Gi}", DEFAULTED, CLAIM, "2Gi", None, True),
        ("{volume: {hostPath: {path: /c}}}", DEFAULTED, {"hostPath": {"path": "/c"}}, None, None, True),
        ("{volume: {emptyDir: {}}}", DEFAULTED, {"emptyDir": {}}, None, None, False),
    ],
)
def test_where_the_checkpoint_is_kept(
    checkpoint: str,
    settings: Settings,
    source: Object,
    size: str | None,
    storage_class: str | None,
    durable: bool,
) -> None:
    job = make_job(f"aggregator: {{checkpoint: {checkpoint}}}")
    job = with_checkpoint(job, settings.checkpoint_size, settings.checkpoint_storage_class)
    children = build(job, settings)
    assert volumes_of(children.aggregation)["checkpoint"] == source
    assert checkpoint_is_durable(job) is durable
    if size is None:
        assert children.claim is None
        return
    assert children.claim is not None
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    assert children.claim["spec"] == spec | ({"storageClassName": storage_class} if storage_class else {})
