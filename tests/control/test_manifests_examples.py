"""The two examples that the end-to-end tests run, as objects: what a reader of the file would expect."""

from __future__ import annotations

from engram_operator.manifests import build_children
from tests.control.building import (
    build,
    environment_of,
    example,
    main_of,
    make_context,
    mounts_of,
    pod_of,
    volumes_of,
)
from tests.control.restricted import violations

EDGE = "node-role.kubernetes.io/edge"


def test_digits_is_one_aggregator_and_five_workers_that_run_anywhere() -> None:
    children = build(example("01-digits.yaml"))
    assert [job["metadata"]["name"] for job in children.jobs] == ["digits-aggregation", "digits-edge"]
    assert len(children.worker_tokens["data"]) == 5
    workers = children.workers["edge"]
    assert (workers["spec"]["parallelism"], workers["spec"]["completions"]) == (5, 5)
    assert environment_of(workers)["PARTICIPANTS_COUNT"] == "5"
    assert environment_of(workers)["AGG_IP"] == "digits-aggregation.default.svc.cluster.local"
    assert "nodeSelector" not in pod_of(workers)
    for job in children.jobs:
        assert violations(pod_of(job)) == []
        assert "data" not in volumes_of(job)
    assert children.claim is None
    assert children.node_port is None


def test_street_signs_is_exposed_by_a_node_port_and_keeps_its_checkpoint() -> None:
    children = build(example("05-edge-and-gpu-workers.yaml"))
    assert children.node_port is not None
    assert children.node_port["metadata"]["namespace"] == "traffic"
    assert children.node_port["spec"]["ports"][0]["nodePort"] == 30363
    assert children.claim is not None
    assert children.claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}},
    }
    aggregation = children.aggregation
    assert volumes_of(aggregation)["checkpoint"] == {
        "persistentVolumeClaim": {"claimName": "street-signs-checkpoint"}
    }
    assert main_of(aggregation)["resources"] == {"requests": {"cpu": "500m", "memory": "1Gi"}}
    assert aggregation["spec"]["backoffLimit"] == 10


def test_street_signs_has_three_kinds_of_workers() -> None:
    workers = build(example("05-edge-and-gpu-workers.yaml")).workers
    assert {name: job["spec"]["completions"] for name, job in workers.items()} == {
        "camera": 2,
        "archive": 1,
        "gpu": 1,
    }
    for name in ("camera", "gpu"):
        assert pod_of(workers[name])["nodeSelector"] == {EDGE: ""}
        assert environment_of(workers[name])["ENGRAM_AGGREGATOR_ENDPOINTS"] == "192.0.2.10:30363"
        assert volumes_of(workers[name])["data"] == {"hostPath": {"path": "/srv/street-signs"}}
        assert violations(pod_of(workers[name])) == ["volume data: hostPath"]
    assert main_of(workers["camera"])["resources"] == {
        "requests": {"cpu": "250m", "memory": "512Mi"},
        "limits": {"memory": "2Gi"},
    }

    archive = workers["archive"]
    assert volumes_of(archive)["data"] == {"persistentVolumeClaim": {"claimName": "street-signs-archive"}}
    assert mounts_of(archive)["/data"]["readOnly"] is True
    assert environment_of(archive)["TRAIN_DATASET_URL"] == "/data/archive"
    assert environment_of(archive)["AGG_IP"] == "street-signs-aggregation.traffic.svc.cluster.local"
    assert violations(pod_of(archive)) == []

    gpu = workers["gpu"]
    assert main_of(gpu)["image"] == "registry.example.com/engram-runtime:0.1.0-cuda"
    assert main_of(gpu)["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert main_of(gpu)["env"][-1] == {"name": "CUDA_MODULE_LOADING", "value": "LAZY"}
    assert environment_of(gpu)["WORKER_NAME"] == "trainworker-gpu-$(WORKER_INDEX)"


def test_the_exposed_address_is_known_before_any_object_exists() -> None:
    job = example("05-edge-and-gpu-workers.yaml")
    context = make_context(job)
    assert context.endpoints == ("192.0.2.10:30363",)
    assert build_children(job, context).config_map["data"]["endpoints"] == "192.0.2.10:30363\n"
