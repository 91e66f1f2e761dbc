"""The builders' objects before a real API server, which knows every field, default and Pod Security rule."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from engram.spec import FederatedIncrementalJob, parse_job
from engram.spec.names import GROUP_NAME_LENGTH, JOB_NAME_LENGTH, MOST_WORKERS, OPERATOR
from engram_operator.manifests import Context, build_children, endpoints_of, job_patch
from engram_operator.manifests.report import report_config_map, report_job
from engram_operator.model import JobView, Object, Observed
from engram_operator.reconcile.children import first_objects
from tests.cluster.api import MERGE, Api, ApiError
from tests.cluster.waiting import until
from tests.control.building import CREDENTIALS, HEAD, SETTINGS, build, example, make_context, make_job

pytestmark = pytest.mark.control

CLAIM = "{persistentVolumeClaim: {claimName: images}}"
HOST_PATH = "{hostPath: {path: /srv/images}}"
HOST_PORT = "aggregator: {nodeName: n1, expose: {type: HostPort, port: 9000}}"
RESTRICTED = [
    "",
    f"dataset: {{volume: {CLAIM}}}\nworkers: [{{name: a, placement: edge, state: {{volume: {CLAIM}}}}}]",
    "dataset: {volume: {configMap: {name: c}}}\naggregator: {checkpoint: {size: 1Gi}}",
    "dataset: {volume: {emptyDir: {}}}\nworkers: [{name: a, placement: cloud, gpus: {count: 1}}]",
    "aggregator: {expose: {type: NodePort, address: a.b}}\nimagePullSecrets: [{name: registry}]",
    "workers: [{name: a, podTemplate: {spec: {containers: [{name: side, image: i}]}}}]",
]
PRIVILEGED = [
    (f"dataset: {{volume: {HOST_PATH}}}", 'volume "data" uses restricted volume type "hostPath"'),
    (HOST_PORT, 'container "main" uses hostPort 9000'),
    ("aggregator: {podTemplate: {spec: {hostNetwork: true}}}", "hostNetwork=true"),
]


def placed(job: FederatedIncrementalJob, namespace: str) -> FederatedIncrementalJob:
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"namespace": namespace})})


def lost(found: object, sent: object, path: str = "") -> list[str]:
    """Return the places where the server has not kept what was sent, list items in their order.

    An empty text may be left out: it is what a missing one means.
    """
    if isinstance(sent, dict) and isinstance(found, dict):
        return [
            place for key, value in sent.items() for place in lost(found.get(key, ""), value, f"{path}.{key}")
        ]
    if isinstance(sent, list) and isinstance(found, list) and len(sent) == len(found):
        pairs = enumerate(zip(found, sent, strict=True))
        return [place for index, pair in pairs for place in lost(*pair, f"{path}[{index}]")]
    return [] if found == sent else [f"{path}: {sent!r} became {found!r}"]


def pod_from(job: Object) -> Object:
    """Return the pod that the Job controller would make, but for its index."""
    template = job["spec"]["template"]
    metadata = {**template["metadata"], "namespace": job["metadata"]["namespace"], "name": "x"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.fixture(scope="module")
def restricted(api: Api) -> Iterator[str]:
    """A namespace that enforces Pod Security `restricted`."""
    name = f"restricted-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    until(lambda: bool(api.list("ServiceAccount", name)), f"the service account of {name}")
    yield name
    api.delete("Namespace", name)


@pytest.mark.parametrize(
    "job",
    [
        example("01-digits.yaml"),
        example("05-edge-and-gpu-workers.yaml"),
        *map(make_job, RESTRICTED),
        *(make_job(spec) for spec, _ in PRIVILEGED),
    ],
    ids=lambda job: job.name,
)
def test_every_field_is_known_and_kept_as_it_was_sent(
    api: Api, namespace: str, job: FederatedIncrementalJob
) -> None:
    for item in build(placed(job, namespace)).all:
        assert lost(api.create(item, dry_run=True), item) == []
        if item["kind"] != "Job":
            assert lost(api.apply(item, dry_run=True), item) == []


@pytest.mark.parametrize("expose", ["{type: ClusterIP}", "{type: NodePort, address: a.b}"])
@pytest.mark.parametrize("own", ["", "engram-system"])
def test_the_network_policy_is_known_and_kept(api: Api, namespace: str, own: str, expose: str) -> None:
    settings = replace(SETTINGS, network_policy=True, own_namespace=own, prometheus_namespace="monitoring")
    job = placed(make_job(f"aggregator: {{expose: {expose}}}"), namespace)
    policy = build(job, settings).policy
    assert policy is not None
    assert lost(api.apply(policy, dry_run=True), policy) == []


@pytest.mark.parametrize("checkpoint", ["{}", f"{{volume: {CLAIM}}}", "{size: 1Gi}"])
def test_the_report_is_made_and_kept_where_restricted_is_enforced(
    api: Api, restricted: str, checkpoint: str
) -> None:
    wanted = f"{{volume: {CLAIM}, prometheus: {{url: 'https://p.example', secretName: login}}}}"
    job = placed(make_job(f"aggregator: {{checkpoint: {checkpoint}}}\nreport: {wanted}"), restricted)
    made = report_job(job, SETTINGS, peers=("replay", "icarl"))
    assert lost(api.create(made, dry_run=True), made) == []
    assert api.create(pod_from(made), dry_run=True)["spec"]["containers"]
    kept = report_config_map(job, {"report.json": "{}", "report.md": "x" * 890_000})
    assert lost(api.apply(kept, dry_run=True), kept) == []


@pytest.mark.parametrize("spec", RESTRICTED)
def test_pods_run_where_restricted_is_enforced(api: Api, restricted: str, spec: str) -> None:
    for job in build(placed(make_job(spec), restricted)).jobs:
        assert api.create(pod_from(job), dry_run=True)["spec"]["containers"]


@pytest.mark.parametrize(("spec", "problem"), PRIVILEGED)
def test_host_access_is_all_that_pod_security_minds(
    api: Api, restricted: str, spec: str, problem: str
) -> None:
    with pytest.raises(ApiError) as caught:
        api.create(pod_from(build(placed(make_job(spec), restricted)).aggregation), dry_run=True)
    message = str(caught.value)
    assert problem in message or problem.replace("9000", "ports 9000") in message
    for other in ("runAsNonRoot", "allowPrivilegeEscalation", "capabilities", "seccompProfile"):
        assert other not in message


def test_a_job_is_suspended_resumed_and_resized(api: Api, namespace: str) -> None:
    made = build(placed(make_job("suspend: true\nworkers: [{name: a, replicas: 2}]"), namespace)).workers["a"]
    made["metadata"].pop("ownerReferences")  # of a job that does not exist: it would be collected
    api.create(made)
    for suspend, replicas in ((True, 5), (False, 5), (True, 1)):
        view = JobView.from_object(api.get("Job", "digits-a", namespace))
        patch = job_patch(view, suspend=suspend, replicas=replicas)
        assert patch is not None
        api.patch("Job", patch.name, dict(patch.body), namespace=namespace, content=MERGE)
        view = JobView.from_object(api.get("Job", "digits-a", namespace))
        assert (view.suspend, view.parallelism, view.completions) == (suspend, replicas, replicas)
        assert job_patch(view, suspend=suspend, replicas=replicas) is None


def test_a_node_port_that_the_server_chooses_becomes_the_endpoint(api: Api, namespace: str) -> None:
    job = placed(make_job("aggregator: {expose: {type: NodePort, address: a.b}}"), namespace)
    assert endpoints_of(job, None, None, SETTINGS) == ()
    service = build_children(job, make_context(job)).node_port
    assert service is not None
    service["metadata"].pop("ownerReferences")
    applied = api.apply(service)
    (endpoint,) = endpoints_of(job, applied, None, SETTINGS)
    host, _, port = endpoint.rpartition(":")
    assert host == "a.b"
    assert 30000 <= int(port) <= 32767
    assert [item["port"] for item in applied["spec"]["ports"]] == [7363]


@pytest.mark.usefixtures("crd")
def test_null_in_a_pod_template_reaches_the_operator(api: Api, namespace: str) -> None:
    template = {"spec": {"tolerations": None, "priorityClassName": "low"}}
    spec = {"workers": [{"name": "a", "podTemplate": template}]}
    metadata = {"name": "nulls", "namespace": namespace}
    stored = api.create({**HEAD, "metadata": metadata, "spec": spec})
    job = parse_job(stored)
    pod = build_children(job, Context(SETTINGS, CREDENTIALS, ("a:1",))).workers["a"]["spec"]["template"][
        "spec"
    ]
    assert pod["priorityClassName"] == "low"
    assert "tolerations" not in pod


def test_the_tokens_of_as_many_workers_as_there_may_be_can_grow(api: Api, namespace: str) -> None:
    names = [f"group{number:0{GROUP_NAME_LENGTH - 5}d}" for number in range(MOST_WORKERS // 1000)]

    def tokens(last: int) -> Object:
        """The Secret as the operator writes it, with so many workers in the last group."""
        groups = [f"- {{name: {name}, replicas: {1000 if name != names[-1] else last}}}" for name in names]
        job = make_job("workers:\n" + "\n".join(groups), "a" * JOB_NAME_LENGTH, namespace)
        plan = first_objects(build(job), Observed())
        (found,) = (item for item in plan.apply if item["kind"] == "Secret")
        del found["metadata"]["ownerReferences"]  # no such job: it would be collected
        return found

    for last in (1, 999, 1000):
        written = api.apply(tokens(last), manager=OPERATOR)
        assert len(written["data"]) == MOST_WORKERS - 1000 + last
        assert [entry["operation"] for entry in written["metadata"]["managedFields"]] == ["Apply"]
