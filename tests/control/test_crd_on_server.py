"""The CRD on the real API server: rules and their words, defaults, lists, columns, and every example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engram.errors import ConfigurationError
from engram.spec import load_job, parse_job
from engram.spec.cel import rules
from engram.spec.job import JobSpec
from engram.spec.names import API_VERSION, KIND, RESERVED_GROUP_NAMES
from engram.spec.parameters import CLASS_COUNTS
from engram.spec.schema import schema_of
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.fixtures import CRDS, Cluster
from tests.cluster.kubectl import Kubectl, KubectlError

pytestmark = pytest.mark.control

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def job(spec: Object, name: str = "digits", namespace: str = "default") -> Object:
    """Return a job as plain data."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


NAMES = {
    "a" * 41: "metadata.name is too long: write at most 40 characters",
    "1a": "metadata.name: write lower-case letters, digits and hyphens, a letter first and no hyphen last",
    "a.b": "metadata.name: write lower-case letters, digits and hyphens, a letter first and no hyphen last",
}

CARRIES = (
    "with protocol sedna every worker trains in every round, weights are JSON text and nobody can ask "
    "workers to evaluate: write clientFraction: 1, compression: none, location: aggregator"
)
TRAIN_ON = (
    "with aggregation.buffer.size workers train on while a round closes, which protocol sedna cannot do and "
    "evaluation on workers would interrupt: write protocol: engram, and evaluation.every: task or location: "
    "aggregator"
)
AS_THEY_ARE = (
    "with buffer.size nobody is sampled or late and updates travel as they are: write clientFraction: 1, "
    "compression: none and no stragglerFactor, or buffer.size: 0"
)
BUFFER: list[tuple[str, Object, Object, str, str]] = [
    (
        "a rule that compares",
        {},
        {"name": "median"},
        "spec.aggregation",
        "median, trimmed-mean, krum compare updates of one model, in a buffer they are of several: write "
        "another aggregation.name, or buffer.size: 0",
    ),
    ("sampling", {}, {"clientFraction": 0.5}, "spec.aggregation", AS_THEY_ARE),
    ("a factor", {}, {"stragglerFactor": 2, "quorum": "50%"}, "spec.aggregation", AS_THEY_ARE),
    ("evaluation", {"evaluation": {"location": "workers", "every": "round"}}, {}, "spec", TRAIN_ON),
    ("sedna", {"protocol": "sedna", "tasks": {"count": 1}}, {}, "spec", TRAIN_ON),
]
SEDNA: list[tuple[str, Object, str]] = [
    (
        "tasks",
        {"tasks": {"count": 2}},
        "Sedna's workers know rounds only: write tasks.count: 1, and all classes as classesPerTask",
    ),
    (
        "algorithm",
        {"algorithm": {"name": "replay"}},
        "protocol sedna carries nothing but weights: write algorithm.name: finetune or fedprox",
    ),
    ("sampling", {"aggregation": {"clientFraction": 0.5}}, CARRIES),
    ("evaluation", {"evaluation": {"location": "workers"}}, CARRIES),
    (
        "model",
        {"model": {"name": "none"}},
        "without data nobody knows the model's input: write none for dataset.name and model.name or for "
        "neither",
    ),
]

REFUSED: list[tuple[str, Object, str, str]] = [
    (
        "minimum of samples with local data",
        {"dataset": {"partition": {"method": "local", "minSamples": 1}}},
        "spec.dataset.partition",
        "minSamples has no effect with method local: remove it, or write method: dirichlet, iid or shards",
    ),
    (
        "listed without classes",
        {"tasks": {"classOrder": "listed"}},
        "spec.tasks",
        "classOrder listed needs classes: write count x classesPerTask label ids in learning order",
    ),
    (
        "too few listed classes",
        {"tasks": {"classOrder": "listed", "count": 2, "classes": [3, 1, 4]}},
        "spec.tasks",
        "classOrder listed needs classes: write count x classesPerTask label ids in learning order",
    ),
    (
        "classes that are not asked for",
        {"tasks": {"classes": [1, 2]}},
        "spec.tasks",
        "classes are for classOrder listed only: write classOrder: listed, or remove classes",
    ),
    *(
        (
            f"more classes than {name} has",
            {"dataset": {"name": name}, "tasks": {"count": classes + 1, "classesPerTask": 1}},
            "spec",
            f"the tasks need more classes than the {classes} of the data set: lower tasks.count or "
            "tasks.classesPerTask",
        )
        for name, classes in CLASS_COUNTS.items()
        if classes < 1000
    ),
    (
        "more classes than imagenet has",
        {"dataset": {"name": "imagenet"}, "tasks": {"count": 501, "classesPerTask": 2}},
        "spec",
        "the tasks need more classes than the 1000 of the data set: lower tasks.count or "
        "tasks.classesPerTask",
    ),
    *(
        (
            f"group {name}",
            {"workers": [{"name": name}]},
            "spec.workers[0].name",
            "this name is reserved: write another than aggregation, report, spec, credentials",
        )
        for name in RESERVED_GROUP_NAMES
    ),
    (
        "too many workers",
        {"workers": [{"name": f"g{index}", "replicas": 1000} for index in range(11)]},
        "spec.workers",
        "too many workers: write at most 10000 replicas over all groups",
    ),
    (
        "no labels anywhere",
        {"workers": [{"name": name, "dataset": {"labelRatio": 0}} for name in ("a", "b")]},
        "spec.workers",
        "every group has dataset.labelRatio 0, so nobody holds a label: give one a labelRatio above 0",
    ),
    (
        "a quorum out of reach",
        {"aggregation": {"quorum": 4}},
        "spec",
        "aggregation.quorum can never be reached: write at most the number of workers, or a percentage",
    ),
    (
        "a straggler factor where nobody can be late",
        {"aggregation": {"stragglerFactor": 2}},
        "spec.aggregation",
        "stragglerFactor has no effect with quorum 100%: write a lower quorum such as 75%, or remove it",
    ),
    *(
        (f"a buffer: {case}", {**spec, "aggregation": {"buffer": {"size": 2}, **aggregation}}, path, message)
        for case, spec, aggregation, path, message in BUFFER
    ),
    (
        "a buffer out of reach",
        {"aggregation": {"buffer": {"size": 4}}},
        "spec",
        "aggregation.buffer.size can never be reached: write at most the number of workers",
    ),
    *(
        (f"sedna: {case}", {"protocol": "sedna", "tasks": {"count": 1}, **spec}, "spec", message)
        for case, spec, message in SEDNA
    ),
    (
        "none without sedna",
        {"dataset": {"name": "none"}, "model": {"name": "none"}},
        "spec",
        "none is for protocol sedna only: write what the workers train",
    ),
    (
        "a host port on no node",
        {"aggregator": {"expose": {"type": "HostPort"}}},
        "spec.aggregator",
        "expose.type HostPort needs nodeName: write the node whose port it is",
    ),
    (
        "a port that nobody opens",
        {"aggregator": {"expose": {"port": 30363}}},
        "spec.aggregator.expose",
        "port has no effect with type ClusterIP: write type NodePort or HostPort, or remove port",
    ),
    *(
        (
            f"size {size}",
            {"aggregator": {"checkpoint": {"size": size}}},
            "spec.aggregator.checkpoint",
            "size is no quantity: write one such as 1Gi",
        )
        for size in ("big", "0", "-1Gi", "1 Gi")
    ),
    (
        "a storage class of no claim",
        {"aggregator": {"checkpoint": {"storageClassName": "fast"}}},
        "spec.aggregator.checkpoint",
        "storageClassName needs size: write one such as 1Gi",
    ),
    *(
        (
            f"Prometheus at {url}",
            {"report": {"prometheus": {"url": url}}},
            "spec.report.prometheus.url",
            "write http://HOST:PORT or https://HOST",
        )
        for url in ("prometheus:9090", "ftp://prometheus", "http://")
    ),
]
"""What no schema can say: name, spec, where the server says it, in which words."""


@pytest.mark.parametrize(
    ("spec", "place", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_rule_refuses_in_words_to_act_on(
    api: Api, crd: str, spec: Object, place: str, message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        api.create(job(spec), dry_run=True)
    assert caught.value.code == 422
    assert [cause.split(":")[0] for cause in caught.value.causes] == [place]
    assert caught.value.causes[0].endswith(message)
    with pytest.raises(ConfigurationError):
        parse_job(job(spec))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_child_could_carry_is_refused(api: Api, crd: str, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        api.create(job({}, name), dry_run=True)
    assert NAMES[name] in caught.value.message
    with pytest.raises(ConfigurationError):
        parse_job(job({}, name))


def test_every_rule_has_been_broken_above_or_in_the_changes() -> None:
    said = {message for *_, message in REFUSED} | set(NAMES.values())
    changes = {rule.message for rule in rules(schema_of(JobSpec)) if "has started" in rule.message}
    assert {rule.message for rule in rules(schema_of(JobSpec))} == said | changes


TAKEN: list[Object] = [
    {},
    {"protocol": "sedna", "tasks": {"count": 1}, "dataset": {"name": "none"}, "model": {"name": "none"}},
    {"tasks": {"classOrder": "listed", "count": 2, "classes": [3, 1, 4, 5]}},
    {"dataset": {"name": "cifar100"}, "tasks": {"count": 50}},
    {"dataset": {"name": "mypackage.data:Signs"}, "tasks": {"count": 1000, "classesPerTask": 65536}},
    {"workers": [{"name": f"g{index}", "replicas": 1000} for index in range(10)]},
    {"workers": [{"name": "labelled"}, {"name": "unlabelled", "dataset": {"labelRatio": 0}}]},
    {"aggregation": {"quorum": 3}},
    {"aggregation": {"quorum": "100%"}},
    {"aggregation": {"quorum": "100%", "stragglerFactor": None}},
    {"aggregation": {"quorum": "75%", "stragglerFactor": 2}},
    {"aggregation": {"buffer": {"size": 3}}, "evaluation": {"location": "workers"}},
    {"aggregator": {"expose": {"type": "HostPort", "port": 7363}, "nodeName": "node-1"}},
    {"aggregator": {"expose": {"type": "NodePort", "port": 30363}}},
    {"aggregator": {"checkpoint": {"size": "1.5Gi", "storageClassName": "fast"}}},
    {"report": {"prometheus": {"url": "https://prometheus.monitoring:9090/path"}}},
]


@pytest.mark.parametrize("spec", TAKEN, ids=lambda spec: str(spec)[:60])
def test_what_the_rules_allow_is_taken_with_our_own_defaults(api: Api, crd: str, spec: Object) -> None:
    stored = api.create(job(spec), dry_run=True)
    ours = parse_job(job(spec))
    assert parse_job(stored).spec == ours.spec
    assert without_nulls(ours.spec.dump()) == without_nulls(stored["spec"])


def test_lists_hold_each_group_and_class_once(api: Api, crd: str) -> None:
    with pytest.raises(ApiError, match=r'spec\.workers\[1\]: Duplicate value: .*"name":"edge"'):
        api.create(job({"workers": [{"name": "edge"}, {"name": "edge", "replicas": 1}]}), dry_run=True)
    with pytest.raises(ApiError, match=r"spec\.workers\[1\]: Duplicate value"):
        api.create(job({"workers": [{}, {}]}), dry_run=True)  # both take the default's name
    twice = {"classOrder": "listed", "count": 1, "classes": [7, 7]}
    with pytest.raises(ApiError, match=r"spec\.tasks\.classes\[1\]: Duplicate value: 7"):
        api.create(job({"tasks": twice}), dry_run=True)


def test_appliers_share_the_groups_of_one_job(api: Api, crd: str, namespace: str) -> None:
    """workers is a list-map: two field managers own a group each."""
    for manager, group in (("alice", "edge"), ("bob", "cloud")):
        api.apply(job({"workers": [{"name": group, "replicas": 2}]}, namespace=namespace), manager=manager)
    workers = api.get(KIND, "digits", namespace)["spec"]["workers"]
    assert [worker["name"] for worker in workers] == ["edge", "cloud"]
    with pytest.raises(ApiError, match='conflict with "bob"') as caught:
        api.apply(job({"workers": [{"name": "cloud", "replicas": 9}]}, namespace=namespace), manager="alice")
    assert caught.value.code == 409


@pytest.fixture
def traffic(api: Api) -> None:
    """The namespace that an example names."""
    try:
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "traffic"}})
    except ApiError as error:
        if error.code != 409:
            raise


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_the_same_job_on_the_server_as_here(
    control_plane: Cluster, crd: str, namespace: str, traffic: None, path: Path
) -> None:
    ours = load_job(path)
    own = "namespace" in ours.metadata.model_fields_set
    place = ours.metadata.namespace if own else namespace
    kubectl = control_plane.kubectl.inside(place)
    assert kubectl.apply(path) == f"federatedincrementaljob.engram.dev/{ours.name} created\n"
    found = control_plane.api.get(KIND, ours.name, place)
    kubectl.apply(path)
    assert control_plane.api.get(KIND, ours.name, place)["metadata"]["generation"] == 1
    stored = parse_job(found)
    assert stored.digest() == ours.digest()
    assert stored.spec == ours.spec
    kubectl.delete("fij", ours.name)


STATUS: Object = {
    "phase": "Running",
    "reason": "RoundRunning",
    "startTime": "2026-01-01T00:00:00Z",
    "display": {
        "task": "2/5",
        "round": "7/25",
        "workers": "2/3",
        "accuracy": "93.1%",
        "forgetting": "4.2%",
    },
    "conditions": [
        {
            "type": "Complete",
            "status": "True",
            "reason": "Done",
            "message": "all rounds are closed",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}


def test_what_kubectl_get_shows(api: Api, crd: str, namespace: str, kubectl: Kubectl) -> None:
    api.create(job({}, namespace=namespace))
    api.patch(KIND, "digits", {"status": STATUS}, namespace=namespace, part="status")
    header, row = kubectl.run("get", "fij").splitlines()
    assert header.split() == ["NAME", "PHASE", "TASK", "ROUND", "ACCURACY", "FORGETTING", "WORKERS", "AGE"]
    assert row.split()[:7] == ["digits", "Running", "2/5", "7/25", "93.1%", "4.2%", "2/3"]
    header, row = kubectl.run("get", "fij", "--output=wide").splitlines()
    assert header.split()[8:] == ["ALGORITHM", "DATASET", "AGGREGATION", "REASON"]
    assert row.split()[8:] == ["finetune", "digits", "fedavg", "RoundRunning"]
    assert "digits" in kubectl.run("get", "ai")
    assert kubectl.run("get", "all") == ""  # `kubectl delete all --all` spares training runs
    kubectl.wait("fij/digits", "condition=Complete", seconds=10)
    assert "Share of each worker's samples" in kubectl.run("explain", "fij.spec.dataset.labelRatio")


def test_status_is_written_through_its_own_door_only(api: Api, crd: str, namespace: str) -> None:
    stored = api.create({**job({}, namespace=namespace), "status": STATUS})
    assert "status" not in stored
    stored = api.patch(
        KIND,
        "digits",
        {"spec": {"seed": 5}, "status": STATUS},
        namespace=namespace,
        part="status",
    )
    assert (stored["spec"]["seed"], stored["status"]["phase"]) == (0, "Running")
    assert stored["metadata"]["generation"] == 1
    for change, refusal in (
        ({"phase": "Sleeping"}, 'status.phase: Unsupported value: "Sleeping"'),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, r"status.conditions\[0\].reason: Required"),
        ({"metrics": {"accuracy": "93%"}}, "metrics.accuracy in body should match"),
        ({"workerStatuses": [{"name": f"w{n}"} for n in range(21)]}, "must have at most 20 items"),
    ):
        with pytest.raises(ApiError, match=refusal):
            api.patch(KIND, "digits", {"status": change}, namespace=namespace, part="status", dry_run=True)


def test_kubectl_refuses_a_field_that_is_misspelt(crd: str, kubectl: Kubectl) -> None:
    text = f"apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata: {{name: a}}\nspec: {{taks: {{count: 2}}}}\n"
    with pytest.raises(KubectlError, match=r'unknown field "spec\.taks"'):
        kubectl.apply(text)


def test_kubectl_takes_the_crd_again_as_it_is(crd: str, control_plane: Cluster) -> None:
    """By plain `kubectl apply`, whose annotation holds at most 256 KiB."""
    assert (
        control_plane.kubectl.apply(CRDS)
        == f"customresourcedefinition.apiextensions.k8s.io/{crd} unchanged\n"
    )
