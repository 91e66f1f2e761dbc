"""FederatedLearningJobs of Sedna: groups, placement, templates, data, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.importing.draft import Imported
from engram.importing.sedna_pods import OWN_VOLUMES
from engram.spec.training import Training
from engram_operator.manifests import Context, build_children, endpoints_of
from engram_operator.manifests.volumes import aggregator_volumes, worker_volumes
from engram_operator.model import Credentials, Object
from engram_operator.settings import Settings
from tests.importing.samples import (
    ACCESS_KEY,
    SECRET_KEY,
    assumed,
    fates,
    from_sedna,
    sedna_job,
    sedna_objects,
    sedna_worker,
    text_of,
    valid,
)

JOB = "input: document 1"
WORKER = f"{JOB}: spec.trainingWorkers[0].template.spec"
CONTAINER = f"{WORKER}.containers[0]"
SETTINGS = Settings(image="runtime:1")


def pods_of(imported: Imported) -> dict[str, Object]:
    """What the operator makes of the job: name of each batch Job -> its pod's spec."""
    job = valid(imported)
    job = job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": "1-2-3"})})
    credentials = Credentials(key="00" * 32, ca="CA", certificate="CERTIFICATE", private_key="KEY")
    context = Context(SETTINGS, credentials, endpoints_of(job, None, None, SETTINGS))
    children = build_children(job, context)
    return {item["metadata"]["name"]: item["spec"]["template"]["spec"] for item in children.jobs}


def with_worker(**container: Any) -> dict[str, Any]:
    """The sample with one worker, whose container has other values."""
    job = sedna_job()
    job["spec"]["trainingWorkers"] = [sedna_worker(1, **container)]
    return job


def with_pod(**spec: Any) -> dict[str, Any]:
    """The sample with one worker, whose pod has other values; None removes one."""
    job = with_worker()
    pod = job["spec"]["trainingWorkers"][0]["template"]["spec"]
    pod.update(spec)
    for key in [key for key, value in pod.items() if value is None]:
        del pod[key]
    return job


def test_the_sample_becomes_the_job_that_it_describes() -> None:
    imported = from_sedna(sedna_job(), *sedna_objects())
    job = valid(imported)
    spec = job.spec
    assert (job.name, job.metadata.namespace) == ("tile-defects", "factory")
    assert (spec.tasks.count, spec.dataset.partition.method, spec.evaluation.location) == (
        1,
        "local",
        "workers",
    )
    assert (spec.training.rounds_per_task, spec.training.local_epochs, spec.training.batch_size) == (3, 2, 16)
    assert spec.training.optimizer.learning_rate == 0.01
    assert (spec.aggregator.node_name, spec.aggregator.placement) == ("cloud", "any")
    assert spec.aggregator.resources == {"limits": {"memory": "2Gi"}}
    assert [(group.name, group.replicas, group.image) for group in spec.workers] == [
        ("worker1", 1, "example/tile-train:1"),
        ("worker2", 1, "example/tile-train:1"),
    ]
    assert [group.dataset.volume for group in spec.workers] == [
        {"hostPath": {"path": "/data/1"}},
        {"hostPath": {"path": "/data/2"}},
    ]


def test_the_operator_makes_pods_of_it_on_the_nodes_of_the_input() -> None:
    pods = pods_of(from_sedna(sedna_job(), *sedna_objects()))
    assert set(pods) == {"tile-defects-aggregation", "tile-defects-worker1", "tile-defects-worker2"}
    for name, node in (("aggregation", "cloud"), ("worker1", "edge1"), ("worker2", "edge2")):
        affinity = pods[f"tile-defects-{name}"]["affinity"]["nodeAffinity"]
        (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    (main,) = pods["tile-defects-worker1"]["containers"]
    assert main["image"] == "example/tile-train:1"
    assert main["imagePullPolicy"] == "IfNotPresent"
    assert {"name": "learning_rate", "value": "1e-2"} in main["env"]
    data = next(volume for volume in pods["tile-defects-worker1"]["volumes"] if volume["name"] == "data")
    assert data["hostPath"]["path"] == "/data/1"


def test_what_has_no_counterpart_is_said_with_why() -> None:
    found = fates(from_sedna(sedna_job(), *sedna_objects()))
    aggregator = f"{JOB}: spec.aggregationWorker.template.spec.containers[0]"
    for place, words in {
        f"{JOB}: spec.pretrainedModel.name": "weights drawn by the seed",
        f"{JOB}: spec.aggregationWorker.model.name": "code in the image",
        f"{aggregator}.image": "engram's own aggregator",
        f"{CONTAINER}.args": "engram worker",
        "input: document 2: spec.format": "docs/data.md",
        "input: document 4: spec.url": "weights drawn by the seed",
        "input: document 5: ": "never read",
    }.items():
        ((target, remark),) = found[place]
        assert (target, words in remark) == ("", True), (place, remark)
    assert "engram-runtime" in found[f"{CONTAINER}.image"][0][1]


def test_credentials_are_never_seen_again() -> None:
    job = with_worker(
        env=[
            {"name": "SECRET_ACCESS_KEY", "value": SECRET_KEY},
            {"name": "STORE", "value": f"s3://{ACCESS_KEY}:{SECRET_KEY}@minio/b"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "minio", "key": "token"}}},
        ],
        args=["--secret-key", SECRET_KEY],
    )
    job["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": SECRET_KEY}
    job["metadata"]["labels"] = {"password": SECRET_KEY, "team": "tiles"}
    job["spec"]["transmitter"]["s3"] = {"aggDataPath": "s3://fl/data", "credentialName": "minio"}
    job["spec"]["aggregationWorker"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "ACCESS_KEY_ID", "value": ACCESS_KEY}
    ]
    template = job["spec"]["trainingWorkers"][0]["template"]
    template["metadata"] = {"annotations": {"apiKey": SECRET_KEY}, "labels": {"line": "2"}}
    template["spec"]["volumes"] = [{"name": "s3", "csi": {"volumeAttributes": {"secretKey": SECRET_KEY}}}]
    for dialect in (False, True):
        imported = from_sedna(job, *sedna_objects(), dialect=dialect)
        text = text_of(imported)
        assert SECRET_KEY not in text
        assert ACCESS_KEY not in text
        assert "secretKeyRef" in text
        assert "team: tiles" in text
        remarks = [entry.remark for entry in imported.left]
        assert sum("never copied" in remark for remark in remarks) >= 6


def test_without_sednas_protocol_the_file_says_that_the_images_code_is_not_run() -> None:
    imported = from_sedna(sedna_job(), *sedna_objects())
    assert "protocol" not in imported.job["spec"]
    assert "the code in the images is not run" in assumed(imported)["spec.protocol"]


class TestSednasProtocol:
    """The workers' images train as they are."""

    def test_nothing_is_named_that_only_the_images_know(self) -> None:
        imported = from_sedna(sedna_job(), *sedna_objects(), dialect=True)
        spec = valid(imported).spec
        assert (spec.protocol, spec.dataset.name, spec.model.name) == ("sedna", "none", "none")
        assert (spec.tasks.count, spec.algorithm.name, spec.evaluation.location) == (
            1,
            "finetune",
            "aggregator",
        )
        assert spec.training.rounds_per_task == 3
        assert spec.training.batch_size == Training().batch_size
        found = fates(imported)
        assert "its own code trains" in found[f"{CONTAINER}.image"][0][1]
        assert found[f"{CONTAINER}.env[0]"] == [("spec.workers[0].podTemplate.spec.containers[0].env", "")]
        assert "PRETRAINED_MODEL_URL" in found[f"{JOB}: spec.pretrainedModel.name"][0][1]
        assert "nothing is evaluated" in assumed(imported)["spec.dataset.name"]

    def test_names_that_sound_like_engrams_are_not_taken_for_it(self) -> None:
        """An update of another shape than the named model's would be refused."""
        job, data = sedna_job(), sedna_objects()[0]
        job["spec"]["aggregationWorker"]["model"]["name"] = "lenet5"
        data["spec"]["url"] = "/data/cifar10/1.txt"
        spec = valid(from_sedna(job, data, dialect=True)).spec
        assert (spec.dataset.name, spec.model.name) == ("none", "none")

    def test_a_pod_has_the_images_program_sednas_environment_and_its_data(self) -> None:
        imported = from_sedna(sedna_job(), *sedna_objects(), dialect=True)
        pod = pods_of(imported)["tile-defects-worker1"]
        (main,) = pod["containers"]
        assert (main["image"], main["command"], main["args"]) == ("example/tile-train:1", [], ["-i", "1"])
        env = {entry["name"]: entry.get("value") for entry in main["env"]}
        assert (env["batch_size"], env["learning_rate"], env["epochs"]) == ("16", "1e-2", "2")
        assert (env["AGG_IP"], env["AGG_PORT"]) == (
            "tile-defects-aggregation.factory.svc.cluster.local",
            "7363",
        )
        assert env["WORKER_NAME"] == "trainworker-worker1-$(WORKER_INDEX)"
        assert env["PARTICIPANTS_COUNT"] == "2"
        assert env["TRAIN_DATASET_URL"] == "/data/tiles.txt"
        assert {"name": "data", "hostPath": {"path": "/data/1"}} in pod["volumes"]

    def test_the_command_that_a_container_names_is_kept(self) -> None:
        imported = from_sedna(with_worker(command=["python", "train.py"], args=None), dialect=True)
        (main,) = pods_of(imported)["tile-defects-worker1"]["containers"]
        assert main["command"] == ["python", "train.py"]
        assert "args" not in main
        place = "spec.workers[0].podTemplate.spec.containers[0].command"
        assert fates(imported)[f"{CONTAINER}.command"] == [(place, "")]
        assert "entrypoint" not in str(assumed(imported))

    def test_an_image_with_its_own_entrypoint_is_said(self) -> None:
        imported = from_sedna(with_worker(), dialect=True)
        assert "entrypoint" in assumed(imported)["spec.workers[].podTemplate.spec.containers[0].command"]

    def test_a_command_with_a_credential_is_not_replaced_by_engrams(self) -> None:
        imported = from_sedna(with_worker(command=["train", f"--token={SECRET_KEY}"]), dialect=True)
        (main,) = pods_of(imported)["tile-defects-worker1"]["containers"]
        assert main["command"] == []
        assert "never copied" in fates(imported)[f"{CONTAINER}.command"][0][1]

    def test_a_rule_of_sednas_that_takes_more_than_weights_is_said(self) -> None:
        job = sedna_job()
        env = job["spec"]["aggregationWorker"]["template"]["spec"]["containers"][0]["env"]
        env.append({"name": "aggregation_algorithm", "value": "mistnet"})
        imported = from_sedna(job, dialect=True)
        assert valid(imported).spec.aggregation.name == "fedavg"
        place = f"{JOB}: spec.aggregationWorker.template.spec.containers[0].env[1].value"
        assert fates(imported)[place][0][1].endswith("weights that are sent to /FedAvg")


def test_equal_workers_are_replicas_of_one_group() -> None:
    job = sedna_job()
    job["spec"]["trainingWorkers"] = [sedna_worker(1), sedna_worker(2), sedna_worker(1)]
    imported = from_sedna(job, *sedna_objects())
    assert [(group.name, group.replicas) for group in valid(imported).spec.workers] == [
        ("worker1", 2),
        ("worker2", 1),
    ]
    found = fates(imported)
    for number, group in ((0, 0), (1, 1), (2, 0)):
        place = f"{JOB}: spec.trainingWorkers[{number}].template.spec.containers[0].image"
        assert found[place][0][0] == f"spec.workers[{group}].image"


def test_more_kinds_of_workers_than_groups_are_refused() -> None:
    job = sedna_job()
    job["spec"]["trainingWorkers"] = [sedna_worker(number) for number in range(33)]
    with pytest.raises(
        ConfigurationError, match=r"spec.trainingWorkers: are 33 different workers: a job has at"
    ):
        from_sedna(job)


class TestPlacement:
    def test_the_label_of_edge_nodes_is_a_placement(self) -> None:
        selector = {"node-role.kubernetes.io/edge": "", "line": "2"}
        imported = from_sedna(with_pod(nodeName=None, nodeSelector=selector))
        (group,) = valid(imported).spec.workers
        assert group.placement == "edge"
        assert group.pod_template["spec"]["nodeSelector"] == {"line": "2"}
        pod = pods_of(imported)["tile-defects-worker1"]
        assert pod["nodeSelector"] == selector
        assert fates(imported)[f"{WORKER}.nodeSelector.'node-role.kubernetes.io/edge'"][0][0] == (
            "spec.workers[0].placement"
        )

    def test_the_node_of_the_data_counts_where_the_template_has_none(self) -> None:
        imported = from_sedna(with_pod(nodeName=None), *sedna_objects())
        assert "edge1" in str(pods_of(imported)["tile-defects-worker1"]["affinity"])
        assert fates(imported)["input: document 2: spec.nodeName"][0][0].endswith("podTemplate.spec.affinity")

    def test_the_template_wins_over_the_data(self) -> None:
        imported = from_sedna(with_pod(nodeName="elsewhere"), *sedna_objects())
        assert "elsewhere" in str(pods_of(imported)["tile-defects-worker1"]["affinity"])
        assert "'elsewhere' counts" in fates(imported)["input: document 2: spec.nodeName"][0][1]

    def test_affinity_beside_a_node(self) -> None:
        apart = {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]
        }
        nodes: dict[str, Any] = {"preferredDuringSchedulingIgnoredDuringExecution": []}
        imported = from_sedna(with_pod(affinity={"podAntiAffinity": apart, "nodeAffinity": nodes}))
        assert pods_of(imported)["tile-defects-worker1"]["affinity"]["podAntiAffinity"] == apart
        assert fates(imported)[f"{WORKER}.affinity.nodeAffinity"] == [("", "nodeName says it all")]

    def test_affinity_alone_is_kept(self) -> None:
        affinity: dict[str, Any] = {
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}
        }
        imported = from_sedna(with_pod(nodeName=None, affinity=affinity))
        assert valid(imported).spec.workers[0].pod_template["spec"]["affinity"] == affinity


class TestTemplates:
    def test_parts_that_the_pod_template_takes(self) -> None:
        tolerations = [{"key": "line", "operator": "Exists"}]
        job = with_pod(
            tolerations=tolerations,
            hostNetwork=True,
            dnsPolicy="ClusterFirstWithHostNet",
            imagePullSecrets=[{"name": "registry"}],
            volumes=[{"name": "cache", "emptyDir": {}}],
        )
        main = job["spec"]["trainingWorkers"][0]["template"]["spec"]["containers"][0]
        main["volumeMounts"] = [{"name": "cache", "mountPath": "/cache"}]
        main["envFrom"] = [{"configMapRef": {"name": "settings"}}]
        imported = from_sedna(job)
        pod = pods_of(imported)["tile-defects-worker1"]
        assert tolerations[0] in pod["tolerations"]
        assert pod["hostNetwork"] is True
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert {"name": "cache", "emptyDir": {}} in pod["volumes"]
        (main,) = pod["containers"]
        assert {"name": "cache", "mountPath": "/cache"} in main["volumeMounts"]
        assert main["envFrom"] == [{"configMapRef": {"name": "settings"}}]

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("restartPolicy", "OnFailure", "a failed pod is replaced"),
            ("serviceAccountName", "admin", "never needs the Kubernetes API"),
            ("hostPID", True, "not allowed"),
            ("initContainers", [{"name": "get"}], "write it into podTemplate"),
            ("securityContext", {"runAsUser": 0}, "runAsUser"),
        ],
    )
    def test_parts_that_engram_keeps_to_itself(self, key: str, value: Any, words: str) -> None:
        imported = from_sedna(with_pod(**{key: value}))
        ((target, remark),) = fates(imported)[f"{WORKER}.{key}"]
        assert (target, words in remark) == ("", True)
        pods_of(imported)

    def test_what_would_collide_with_the_operators_own(self) -> None:
        job = with_pod(volumes=[{"name": "data", "emptyDir": {}}, {"name": "x", "emptyDir": {}}])
        main = job["spec"]["trainingWorkers"][0]["template"]["spec"]["containers"][0]
        main["volumeMounts"] = [
            {"name": "data", "mountPath": "/d"},
            {"name": "x", "mountPath": "/data/"},
            {"name": "none", "mountPath": "/n"},
        ]
        main["env"] = [{"name": "AGG_IP", "value": "1.2.3.4"}, {"name": "ENGRAM_JOB_UID", "value": "x"}]
        template = job["spec"]["trainingWorkers"][0]["template"]
        template["metadata"] = {"labels": {"engram.dev/job": "x", "mine": "1"}, "name": "pod"}
        imported = from_sedna(job)
        found = fates(imported)
        for place in (
            f"{WORKER}.volumes[0]",
            f"{CONTAINER}.volumeMounts[0]",
            f"{CONTAINER}.volumeMounts[1]",
            f"{CONTAINER}.volumeMounts[2]",
            f"{CONTAINER}.env[0]",
            f"{CONTAINER}.env[1]",
        ):
            assert found[place][0][0] == "", place
        pods_of(imported)

    def test_names_of_the_operators_volumes_are_known(self) -> None:
        job = valid(from_sedna(with_worker()))
        (group,) = job.spec.workers
        stateful = group.model_copy(
            update={"state": group.state.model_copy(update={"volume": {"emptyDir": {}}})}
        )
        data = job.spec.dataset.model_copy(update={"volume": {"emptyDir": {}}})
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"dataset": data})})
        mounted = [*aggregator_volumes(job), *worker_volumes(job, stateful)]
        names = {item.volume["name"] for item in mounted} | {"data"}
        assert names == set(OWN_VOLUMES)

    def test_gpus_are_a_field(self) -> None:
        amounts = {"limits": {"nvidia.com/gpu": 2, "memory": "2Gi"}, "requests": {"cpu": "500m"}}
        imported = from_sedna(with_worker(resources=amounts))
        (group,) = valid(imported).spec.workers
        assert (group.gpus.count, group.gpus.resource_name) == (2, "nvidia.com/gpu")
        assert group.resources == {"limits": {"memory": "2Gi"}, "requests": {"cpu": "500m"}}

    def test_a_second_container_is_left(self) -> None:
        job = with_pod()
        job["spec"]["trainingWorkers"][0]["template"]["spec"]["containers"].append(
            {"name": "side", "image": "x"}
        )
        assert fates(from_sedna(job))[f"{WORKER}.containers[1]"][0][0] == ""


class TestEnvironment:
    def test_another_value_of_a_later_worker_is_left_and_kept_in_its_environment(self) -> None:
        job = sedna_job()
        job["spec"]["trainingWorkers"][1]["template"]["spec"]["containers"][0]["env"][0]["value"] = "32"
        imported = from_sedna(job)
        spec = valid(imported).spec
        assert spec.training.batch_size == 16
        place = f"{JOB}: spec.trainingWorkers[1].template.spec.containers[0].env[0]"
        assert fates(imported)[f"{place}.value"] == [
            ("", "a job has one spec.training.batchSize: 16, of the first that says it")
        ]
        assert {"name": "batch_size", "value": "32"} in spec.workers[1].pod_template["spec"]["containers"][0][
            "env"
        ]

    def test_a_value_that_is_none_is_left(self) -> None:
        imported = from_sedna(with_worker(env=[{"name": "epochs", "value": "many"}]))
        assert fates(imported)[f"{CONTAINER}.env[0].value"] == [
            ("", "spec.training.localEpochs takes no such value")
        ]

    def test_rounds_that_cannot_be_are_left(self) -> None:
        job = sedna_job()
        job["spec"]["aggregationWorker"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "0"
        imported = from_sedna(job)
        assert valid(imported).spec.training.rounds_per_task == 5
        place = f"{JOB}: spec.aggregationWorker.template.spec.containers[0].env[0].value"
        assert fates(imported)[place] == [("", "spec.training.roundsPerTask takes no such value")]

    def test_the_rule_of_the_aggregator(self) -> None:
        job = sedna_job()
        env = job["spec"]["aggregationWorker"]["template"]["spec"]["containers"][0]["env"]
        env[:] = [{"name": "aggregation_algorithm", "value": "mistnet"}, {"name": "cut_layer", "value": "4"}]
        imported = from_sedna(job)
        spec = valid(imported).spec
        assert (spec.aggregation.name, spec.training.rounds_per_task) == ("fedavg", 5)
        place = f"{JOB}: spec.aggregationWorker.template.spec.containers[0].env"
        assert "'mistnet' has no counterpart" in fates(imported)[f"{place}[0].value"][0][1]
        assert fates(imported)[f"{place}[1]"][0][0] == ""
        assert "exit_round" in assumed(imported)["spec.training.roundsPerTask"]


class TestData:
    def data(self, **spec: Any) -> dict[str, Any]:
        return {**sedna_objects()[0], "spec": spec}

    @pytest.mark.parametrize(
        ("spec", "volume", "path"),
        [
            ({"url": "/data/1/COCO", "format": "dir"}, {"hostPath": {"path": "/data/1/COCO"}}, ""),
            ({"url": "/data/1/COCO/"}, {"hostPath": {"path": "/data/1/COCO"}}, ""),
            ({"url": "/data/x.npz", "format": "npz"}, {"hostPath": {"path": "/data"}}, "x.npz"),
            ({"url": "s3://bucket/x.txt", "credentialName": "minio"}, {}, ""),
            ({"url": "data/x.txt"}, {}, ""),
            ({"url": "/data/../etc/x.txt"}, {}, ""),
            ({}, {}, ""),
        ],
    )
    def test_urls(self, spec: dict[str, Any], volume: dict[str, Any], path: str) -> None:
        job = valid(from_sedna(with_worker(), self.data(**spec)))
        (group,) = job.spec.workers
        assert (group.dataset.volume, group.dataset.path) == (volume, path)
        assert job.spec.dataset.name == ("npz" if path else "image-folder")
        assert (job.spec.dataset.volume, job.spec.dataset.path) == (volume, path)

    def test_a_worker_without_data_does_not_get_those_of_another(self) -> None:
        job = valid(from_sedna(sedna_job(), sedna_objects()[0]))
        assert job.spec.dataset.volume == {"hostPath": {"path": "/data/1"}}
        assert [group.dataset.volume for group in job.spec.workers] == [job.spec.dataset.volume, {}]

    def test_a_dataset_that_the_input_lacks(self) -> None:
        imported = from_sedna(sedna_job())
        assert (
            "kubectl get datasets.sedna.io"
            in fates(imported)[f"{JOB}: spec.trainingWorkers[0].dataset.name"][0][1]
        )

    def test_what_the_paths_speak_of(self) -> None:
        imported = from_sedna(with_worker(), self.data(url="/data/cifar10/1.txt"))
        spec = valid(imported).spec
        assert (spec.dataset.name, spec.tasks.classes_per_task) == ("cifar10", 10)

    def test_objects_of_a_list_and_objects_that_are_not_named(self) -> None:
        other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}
        unused = {**sedna_objects()[0], "metadata": {"name": "unused"}}
        listed = {
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {},
            "items": [sedna_job(), *sedna_objects()],
        }
        imported = from_sedna(other, listed, unused)
        assert valid(imported).spec.workers[1].dataset.volume == {"hostPath": {"path": "/data/2"}}
        found = fates(imported)
        assert "ConfigMap" not in found["input: document 1: "][0][1]
        assert found["input: document 1: "][0][1] == "no part of a FederatedLearningJob"
        assert found["input: document 3: "][0][1] == "the job does not name it"

    def test_the_network_by_the_models_name(self) -> None:
        job = sedna_job()
        job["spec"]["aggregationWorker"]["model"]["name"] = "tile-lenet"
        imported = from_sedna(job)
        assert valid(imported).spec.model.name == "lenet5"
        assert "by its name only" in fates(imported)[f"{JOB}: spec.aggregationWorker.model.name"][0][1]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([{"kind": "JointInferenceService"}], "kind: is 'JointInferenceService', not FederatedLearningJob"),
        ([{"benchmarkingjob": {}}], "kind: is missing: name a file with a FederatedLearningJob"),
        ([{"benchmarkingjob": {"name": "x"}}], "or import it with engram import ianvs"),
        ([[1]], "is a list, not a mapping"),
        (sedna_objects(), "no object is a FederatedLearningJob: there are 'Dataset', 'Model', 'Secret'"),
        ([sedna_job(), sedna_job()], "document 2: kind: a second FederatedLearningJob: keep one in a file"),
        ([{"kind": "List", "items": []}], "kind: no object is a FederatedLearningJob: there are none: add"),
        ([{**sedna_job(), "apiVersion": "v1"}], "apiVersion: is 'v1', not of Sedna: write sedna.io/v1alpha1"),
        ([{**sedna_job(), "metadata": {}}], "metadata.name: is missing"),
        ([{**sedna_job(), "spec": {}}], "spec.aggregationWorker.template.spec.containers: is missing"),
        ([{**sedna_job(), "spec": "x"}], "spec: is 'x', not a mapping"),
        ([with_pod(containers=[])], "spec.trainingWorkers[0].template.spec.containers: is missing"),
        (
            [with_pod(tolerations="all")],
            "spec.trainingWorkers[0].template.spec.tolerations: is 'all', not a list",
        ),
        ([with_worker(image=None)], "containers[0].image: is missing"),
        ([with_worker(env=[{"name": "a", "value": 3}])], "containers[0].env[0].value: is 3, not text"),
        ([with_worker(env=[{"value": "x"}])], "containers[0].env[0].name: is missing"),
    ],
)
def test_inputs_that_are_no_job(documents: list[Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_sedna(*documents)
    assert str(caught.value).startswith("input: document ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("written", "name"),
    [("surface.defects", "surface-defects"), ("9lives", "job-9lives"), ("A" * 60, "a" * 40), ("x-", "x")],
)
def test_names_become_names_of_jobs(written: str, name: str) -> None:
    job = sedna_job()
    job["metadata"]["name"] = written
    assert valid(from_sedna(job)).name == name
