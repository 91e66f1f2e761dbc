"""Pod templates: command, environment, volumes, placement, confinement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engram_operator.model import Object
from tests.control.building import (
    SETTINGS,
    UID,
    build,
    environment_of,
    main_of,
    make_job,
    mounts_of,
    pod_of,
    volumes_of,
)
from tests.control.restricted import violations

EDGE = "node-role.kubernetes.io/edge"
NOT_EDGE = {"key": EDGE, "operator": "DoesNotExist"}
ON_NODE = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
TOLERATE_EDGE = {"key": EDGE, "operator": "Exists"}
TOLERATE_OFFLINE = [
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": "NoExecute"}
    for name in ("unreachable", "not-ready")
]
PVC = "{persistentVolumeClaim: {claimName: images}}"
HOST_PATH = "{hostPath: {path: /srv/images}}"


def worker(spec: str) -> Object:
    """Return the Job of the one group of a job."""
    (made,) = build(make_job(spec)).workers.values()
    return made


def aggregator(spec: str) -> Object:
    return build(make_job(spec)).aggregation


def required_terms(job: Object) -> list[Object]:
    affinity = pod_of(job)["affinity"]["nodeAffinity"]
    found: list[Object] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return found


# Commands and images


def test_what_runs() -> None:
    children = build(make_job())
    main = main_of(children.aggregation)
    assert (main["command"], main["args"]) == (["engram", "aggregator"], ["--grace", "120"])
    main = main_of(children.workers["edge"])
    assert main["command"] == ["engram", "worker"]
    assert "args" not in main


@pytest.mark.parametrize(
    ("spec", "images"),
    [
        ("workers: [{name: a}]", ("runtime:1", "runtime:1")),
        ("aggregator: {image: mine:2}\nworkers: [{name: a}]", ("mine:2", "mine:2")),
        ("aggregator: {image: mine:2}\nworkers: [{name: a, image: cuda:3}]", ("mine:2", "cuda:3")),
        ("workers: [{name: a, image: cuda:3}]", ("runtime:1", "cuda:3")),
    ],
)
def test_images(spec: str, images: tuple[str, str]) -> None:
    children = build(make_job(spec))
    assert (main_of(children.aggregation)["image"], main_of(children.workers["a"])["image"]) == images


def test_images_are_pulled_as_the_operator_and_the_job_say() -> None:
    children = build(
        make_job("imagePullSecrets: [{name: registry}]"), replace(SETTINGS, image_pull_policy="Always")
    )
    for job in children.jobs:
        assert main_of(job)["imagePullPolicy"] == "Always"
        assert pod_of(job)["imagePullSecrets"] == [{"name": "registry"}]
    assert "imagePullSecrets" not in pod_of(worker(""))


def test_the_last_word_of_every_pod_reaches_its_status() -> None:
    for job in build(make_job()).jobs:
        main = main_of(job)
        assert main["terminationMessagePath"] == "/dev/termination-log"
        assert main["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert pod_of(job)["restartPolicy"] == "Never"


def test_the_aggregator_is_ready_when_it_listens() -> None:
    main = main_of(aggregator(""))
    assert main["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "http-metrics"}
    assert [(port["name"], port["containerPort"]) for port in main["ports"]] == [
        ("tcp-0", 7363),
        ("http-metrics", 9464),
    ]
    assert "livenessProbe" not in main


@pytest.mark.parametrize(("port", "expected"), [(0, 7363), (9000, 9000)])
def test_a_host_port_is_the_federation_port_alone(port: int, expected: int) -> None:
    job = aggregator(f"aggregator: {{nodeName: n1, expose: {{type: HostPort, port: {port}}}}}")
    assert [item.get("hostPort") for item in main_of(job)["ports"]] == [expected, None]


# Environment


def test_environment_of_the_aggregator() -> None:
    job = aggregator(f"dataset: {{volume: {PVC}, path: train/a}}\nworkers: [{{name: a, replicas: 4}}]")
    assert environment_of(job) == {
        "NAMESPACE": "lab",
        "JOB_NAME": "digits",
        "WORKER_NAME": "aggworker-0",
        "PARTICIPANTS_COUNT": "4",
        "AGG_BIND_IP": "0.0.0.0",
        "AGG_BIND_PORT": "7363",
        "DATASET_NAME": "digits",
        "MODEL_NAME": "lenet5",
        "MODEL_URL": f"/checkpoint/{UID}/model",
        "PRETRAINED_MODEL_URL": "",
        "TRAIN_DATASET_URL": "/data/train/a",
        "TEST_DATASET_URL": "/data/train/a",
        "DATA_PATH_PREFIX": "/data",
        "TRANSMITTER": "ws",
        "LC_SERVER": "http://127.0.0.1:7363",
        "ENGRAM_JOB_FILE": "/etc/engram/spec/job.yaml",
        "ENGRAM_JOB_UID": UID,
        "ENGRAM_KEY_FILE": "/etc/engram/credentials/key",
        "ENGRAM_TLS_CERT_FILE": "/etc/engram/credentials/tls.crt",
        "ENGRAM_TLS_KEY_FILE": "/etc/engram/credentials/tls.key",
        "ENGRAM_CHECKPOINT_DIR": f"/checkpoint/{UID}",
        "ENGRAM_DATA_DIR": "/data",
        "ENGRAM_TERMINATION_LOG": "/dev/termination-log",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def test_environment_of_a_worker() -> None:
    job = worker("training: {threads: 2}\nworkers: [{name: a, replicas: 4}]")
    service = "digits-aggregation.lab.svc.cluster.local"
    index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    assert main_of(job)["env"][0] == {"name": "WORKER_INDEX", "valueFrom": index}
    environment = environment_of(job)
    del environment["WORKER_INDEX"]
    assert environment == {
        "NAMESPACE": "lab",
        "JOB_NAME": "digits",
        "WORKER_NAME": "trainworker-a-$(WORKER_INDEX)",
        "PARTICIPANTS_COUNT": "4",
        "AGG_IP": service,
        "AGG_PORT": "7363",
        "DATASET_NAME": "digits",
        "MODEL_NAME": "lenet5",
        "MODEL_URL": "/tmp/model",
        "PRETRAINED_MODEL_URL": "",
        "TRAIN_DATASET_URL": "",
        "TEST_DATASET_URL": "",
        "DATA_PATH_PREFIX": "/data",
        "TRANSMITTER": "ws",
        "LC_SERVER": f"http://{service}:7363",
        "ENGRAM_AGGREGATOR_ENDPOINTS": f"{service}:7363",
        "ENGRAM_ENDPOINTS_FILE": "/etc/engram/spec/endpoints",
        "ENGRAM_JOB_FILE": "/etc/engram/spec/job.yaml",
        "ENGRAM_JOB_UID": UID,
        "ENGRAM_WORKER_GROUP": "a",
        "ENGRAM_TOKEN_FILE": "/etc/engram/credentials/token",
        "ENGRAM_CA_FILE": "/etc/engram/spec/ca.crt",
        "ENGRAM_TLS_NAME": "digits-aggregation.lab.svc",
        "ENGRAM_TERMINATION_LOG": "/dev/termination-log",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
    }


def test_an_ipv6_address_is_told_without_brackets_beside_its_port() -> None:
    job = worker("aggregator: {expose: {type: NodePort, port: 30000, address: 'fd00::1'}}")
    environment = environment_of(job)
    assert (environment["AGG_IP"], environment["AGG_PORT"]) == ("fd00::1", "30000")
    assert environment["ENGRAM_AGGREGATOR_ENDPOINTS"] == "[fd00::1]:30000"


def test_the_kubelet_expands_nothing_that_a_user_wrote() -> None:
    environment = environment_of(worker(f"dataset: {{path: 'a/$(HOME)/b', volume: {PVC}}}"))
    assert environment["TRAIN_DATASET_URL"] == "/data/a/$$(HOME)/b"


# Volumes


def test_a_pod_without_data_mounts_its_spec_its_secret_and_scratch() -> None:
    children = build(make_job())
    assert volumes_of(children.workers["edge"])["credentials"] == {
        "secret": {"secretName": "digits-worker-tokens", "defaultMode": 0o440}
    }
    assert volumes_of(children.aggregation)["credentials"] == {
        "secret": {"secretName": "digits-credentials", "defaultMode": 0o440}
    }
    assert sorted(mounts_of(children.aggregation)) == [
        "/checkpoint",
        "/etc/engram/credentials",
        "/etc/engram/spec",
        "/tmp",
    ]
    assert sorted(mounts_of(children.workers["edge"])) == [
        "/etc/engram/credentials/token",
        "/etc/engram/spec",
        "/tmp",
    ]
    for job in children.jobs:
        assert "ENGRAM_DATA_DIR" not in environment_of(job)


def test_a_worker_sees_its_own_token_only() -> None:
    assert mounts_of(worker(""))["/etc/engram/credentials/token"] == {
        "name": "credentials",
        "mountPath": "/etc/engram/credentials/token",
        "subPathExpr": "$(WORKER_NAME)",
        "readOnly": True,
    }


@pytest.mark.parametrize(
    ("own", "source"),
    [
        ("{}", {"hostPath": {"path": "/srv/images"}}),
        (f"{{volume: {PVC}}}", {"persistentVolumeClaim": {"claimName": "images"}}),
        ("{volume: {configMap: {name: small}}}", {"configMap": {"name": "small"}}),
        ("{volume: {nfs: {server: s, path: /p}}}", {"nfs": {"server": "s", "path": "/p"}}),
        ("{volume: {}}", None),
    ],
)
def test_data_of_a_group_is_its_own_or_the_jobs_and_read_only(own: str, source: Object | None) -> None:
    spec = f"dataset: {{volume: {HOST_PATH}}}\nworkers: [{{name: a, dataset: {own}}}]"
    children = build(make_job(spec))
    assert volumes_of(children.aggregation)["data"] == {"hostPath": {"path": "/srv/images"}}
    job = children.workers["a"]
    assert volumes_of(job).get("data") == source
    assert ("/data" in mounts_of(job)) == (source is not None)
    if source is not None:
        assert mounts_of(job)["/data"] == {"name": "data", "mountPath": "/data", "readOnly": True}
        assert environment_of(job)["ENGRAM_DATA_DIR"] == "/data"


def test_state_of_a_worker_is_a_folder_of_its_own() -> None:
    job = worker(f"workers: [{{name: a, state: {{volume: {PVC}}}}}]")
    assert volumes_of(job)["state"] == {"persistentVolumeClaim": {"claimName": "images"}}
    assert mounts_of(job)["/state"] == {
        "name": "state",
        "mountPath": "/state",
        "subPathExpr": "$(WORKER_NAME)",
    }
    assert environment_of(job)["ENGRAM_STATE_DIR"] == "/state"
    assert environment_of(job)["MODEL_URL"] == "/state/model"
    assert "ENGRAM_STATE_DIR" not in environment_of(worker(""))


# Placement


def test_cloud_keeps_off_edge_nodes() -> None:
    job = worker("workers: [{name: a, placement: cloud}]")
    assert required_terms(job) == [{"matchExpressions": [NOT_EDGE]}]
    assert "tolerations" not in pod_of(job)
    assert "nodeSelector" not in pod_of(job)


def test_edge_is_an_edge_node_also_when_it_is_offline() -> None:
    job = worker("workers: [{name: a, placement: edge}]")
    assert pod_of(job)["nodeSelector"] == {EDGE: ""}
    assert pod_of(job)["tolerations"] == [TOLERATE_EDGE, *TOLERATE_OFFLINE]
    assert "affinity" not in pod_of(job)
    assert job["spec"]["template"]["metadata"]["labels"]["app-offline.kubeedge.io"] == "autonomy"


def test_any_is_any_node_but_rather_one_that_reaches_the_service() -> None:
    job = worker("workers: [{name: a, placement: any}]")
    assert pod_of(job)["tolerations"] == [TOLERATE_EDGE]
    assert pod_of(job)["affinity"] == {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "preference": {"matchExpressions": [NOT_EDGE]}}
            ]
        }
    }
    assert "app-offline.kubeedge.io" not in job["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("expose", ["{address: mesh.name}", "{type: NodePort, address: a.b, port: 30000}"])
def test_any_has_no_preference_when_edge_nodes_are_told_an_address(expose: str) -> None:
    job = worker(f"aggregator: {{expose: {expose}}}\nworkers: [{{name: a, placement: any}}]")
    assert "affinity" not in pod_of(job)
    assert pod_of(job)["tolerations"] == [TOLERATE_EDGE]


@pytest.mark.parametrize(
    ("placement", "term"),
    [
        ("cloud", {"matchExpressions": [NOT_EDGE], "matchFields": [ON_NODE]}),
        ("edge", {"matchFields": [ON_NODE]}),
        ("any", {"matchFields": [ON_NODE]}),
    ],
)
def test_a_node_by_name_still_goes_through_the_scheduler(placement: str, term: Object) -> None:
    job = aggregator(f"aggregator: {{nodeName: n1, placement: {placement}, expose: {{type: HostPort}}}}")
    assert required_terms(job) == [term]
    assert "nodeName" not in pod_of(job)


def test_gpus_are_limits_and_tolerate_the_taint_of_gpu_nodes() -> None:
    job = worker(
        """
        workers:
        - name: a
          placement: cloud
          gpus: {count: 2, resourceName: amd.com/gpu}
          resources: {requests: {cpu: 1, amd.com/gpu: 1}, limits: {memory: 1Gi}}
        """
    )
    assert main_of(job)["resources"] == {
        "requests": {"cpu": 1},
        "limits": {"memory": "1Gi", "amd.com/gpu": "2"},
    }
    assert pod_of(job)["tolerations"] == [
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


def test_resources_are_as_written_without_gpus() -> None:
    spec = (
        "workers: [{name: a, resources: {limits: {cpu: 2}}}]\naggregator: {resources: {requests: {cpu: 1}}}"
    )
    children = build(make_job(spec))
    assert main_of(children.workers["a"])["resources"] == {"limits": {"cpu": 2}}
    assert main_of(children.aggregation)["resources"] == {"requests": {"cpu": 1}}


# Confinement


@pytest.mark.parametrize(
    "spec",
    [
        "",
        f"dataset: {{volume: {PVC}}}\nworkers: [{{name: a, state: {{volume: {PVC}}}}}]",
        "dataset: {volume: {configMap: {name: c}}}\naggregator: {checkpoint: {size: 1Gi}}",
        "dataset: {volume: {emptyDir: {}}}\nworkers: [{name: a, placement: edge, gpus: {count: 1}}]",
        "aggregator: {expose: {type: NodePort, address: a.b, port: 30000}}",
        "workers: [{name: a, podTemplate: {spec: {containers: [{name: side, image: i}]}}}]",
        "workers: [{name: a, podTemplate: {spec: {initContainers: [{name: first, image: i}]}}}]",
    ],
)
def test_pods_without_host_access_are_restricted(spec: str) -> None:
    for job in build(make_job(spec)).jobs:
        assert violations(pod_of(job)) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (f"dataset: {{volume: {HOST_PATH}}}", ["volume data: hostPath"]),
        ("aggregator: {nodeName: n1, expose: {type: HostPort}}", ["main: hostPort"]),
        ("aggregator: {podTemplate: {spec: {hostNetwork: true}}}", ["hostNetwork"]),
    ],
)
def test_pods_with_host_access_break_that_one_rule(spec: str, expected: list[str]) -> None:
    assert violations(pod_of(aggregator(spec))) == expected


def test_pods_hold_no_way_into_the_cluster() -> None:
    for job in build(make_job("workers: [{name: a, runAsUser: 1000}]")).jobs:
        pod = pod_of(job)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert main_of(job)["securityContext"]["readOnlyRootFilesystem"] is True
        assert "serviceAccountName" not in pod


def test_a_group_runs_as_its_user_and_shares_volumes_by_one_group() -> None:
    children = build(make_job("workers: [{name: a, runAsUser: 1000}]"))
    found = {}
    for job in children.jobs:
        security = pod_of(job)["securityContext"]
        found[job["metadata"]["name"]] = [security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")]
    assert found == {"digits-aggregation": [65532, 65532, 65532], "digits-a": [1000, 1000, 65532]}
