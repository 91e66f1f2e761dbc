"""Every bad input and fault that the control plane alone can show: what a user reads, and what mends it.

The operator runs as a process of its own against a real API server, its controllers and its scheduler; pods
run on a fake node. Beside every case a healthy job runs, which nothing may harm. What only a kubelet says is
in tests/e2e/test_explained.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engram.spec.exit_codes import ExitCode
from engram.spec.names import GROUP, Child, Condition, Phase, Reason, Role
from engram.spec.summary import FinalSummary
from engram_operator.preflight import INSTALL, RIGHTS, RIGHTS_OUTSIDE, Right
from tests.cluster.api import Api, Object
from tests.cluster.fake_kubelet import Ending, FakeKubelet, end_pod
from tests.cluster.fixtures import Cluster, FakeNodes
from tests.cluster.kubectl import KubectlError
from tests.cluster.waiting import NotYet, until
from tests.control.explaining import User, group, job_of
from tests.control.operator_process import OperatorProcess, operator

pytestmark = [pytest.mark.control, pytest.mark.timeout(240)]

NODE = "fake-cloud"
DURABLE: Object = {"aggregator": {"checkpoint": {"volume": {"hostPath": {"path": "/srv/checkpoint"}}}}}
BYSTANDER = "bystander"


@dataclass(frozen=True)
class World:
    """A namespace with a healthy job, and the operator that serves it."""

    user: User
    operator: OperatorProcess
    healthy: dict[str, str]
    """Children of the healthy job."""


def new_namespace(api: Api, **labels: str) -> str:
    """Make a namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": {f"pod-security.kubernetes.io/{k}": v for k, v in labels.items()}}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    until(lambda: api.list("ServiceAccount", name), f"the service account of {name}")
    return name


@pytest.fixture(scope="module")
def node(api: Api) -> Iterator[FakeNodes]:
    """A fake node that runs every pod."""
    nodes = FakeNodes(api)
    with FakeKubelet(api):
        nodes(NODE)
        yield nodes
    nodes.remove()


@pytest.fixture(scope="module")
def world(
    control_plane: Cluster, crd: str, node: FakeNodes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """The namespace of most cases."""
    api = control_plane.api
    name = new_namespace(api)
    user = User(api, control_plane.kubectl.inside(name), name)
    log = tmp_path_factory.mktemp("explained") / "operator.log"
    with operator(control_plane.kubeconfig, log, "--namespace", name, "--objects-seconds", "0") as process:
        user.apply(job_of(BYSTANDER))
        user.until_phase(BYSTANDER, Phase.RUNNING)
        yield World(user, process, user.children(BYSTANDER))
    assert "Traceback" not in log.read_text()
    api.delete("Namespace", name)


@pytest.fixture
def user(world: World) -> Iterator[User]:
    """Somebody whose mistakes harm no other job."""
    yield world.user
    assert world.user.children(BYSTANDER) == world.healthy
    assert world.user.status(BYSTANDER)["reason"] == Reason.TRAINING
    for job in world.user.kubectl.list("fij"):
        if job["metadata"]["name"] != BYSTANDER:
            world.user.kubectl.delete("fij", job["metadata"]["name"])


@contextmanager
def serving(cluster: Cluster, folder: Path, namespace: str) -> Iterator[tuple[User, OperatorProcess]]:
    """Run an operator for one namespace."""
    user = User(cluster.api, cluster.kubectl.inside(namespace), namespace)
    arguments = ("--namespace", namespace, "--objects-seconds", "0")
    with operator(cluster.kubeconfig, folder / "operator.log", *arguments) as process:
        yield user, process


# The spec is wrong: said before an object is made, and mended by applying it again.

TEMPLATE = "spec.workers[0].podTemplate.spec"
INVALID: dict[str, tuple[Object, tuple[str, ...]]] = {
    "unknown-algorithm": (
        {"algorithm": {"name": "replays"}},
        ("spec.algorithm.name: 'replays'", "did you mean replay? write one of: finetune"),
    ),
    "unknown-parameter": (
        {"algorithm": {"name": "replay", "parameters": {"exemplarsPerWorkr": 5}}},
        (
            "spec.algorithm.parameters.exemplarsPerWorkr: unknown parameter",
            "did you mean exemplarsPerWorker?",
        ),
    ),
    "parameter-out-of-bounds": (
        {"algorithm": {"name": "replay", "parameters": {"exemplarsPerWorker": -5}}},
        ("spec.algorithm.parameters.exemplarsPerWorker: -5 is too small", "write a whole number from 0"),
    ),
    "no-main-container": (
        {"workers": group(podTemplate={"spec": {"containers": None}})},
        (f"{TEMPLATE}.containers: has no container main", "remove null"),
    ),
    "host-pid": (
        {"workers": group(podTemplate={"spec": {"hostPID": True}})},
        (f"{TEMPLATE}.hostPID: is not allowed", "remove it"),
    ),
    "patch-directive": (
        {"workers": group(podTemplate={"spec": {"containers": [{"$patch": "delete", "name": "main"}]}})},
        (f"{TEMPLATE}.containers[0].$patch: is a patch directive", "write the values you want"),
    ),
    "volume-source": (
        {"dataset": {"volume": {"hostpath": {"path": "/srv"}}}},
        ("spec.dataset.volume.hostpath: is no volume source", "did you mean hostPath?"),
    ),
    "quantity": (
        {"workers": group(resources={"limits": {"memory": "lots"}})},
        ("spec.workers[0].resources.limits.memory: 'lots' is no quantity", "such as 500m, 2, 512Mi"),
    ),
    "node-port-out-of-range": (
        {"aggregator": {"expose": {"type": "NodePort", "port": 80}}},
        ("provided port is not in the valid range", "write spec.aggregator.expose.port within that range"),
    ),
}


@pytest.mark.parametrize(("change", "words"), INVALID.values(), ids=INVALID)
def test_a_wrong_spec(
    user: User, world: World, change: Object, words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    user.apply(job_of(name, change), "--server-side")  # plain apply drops nulls

    user.until_told(name, Reason.INVALID_SPEC, *words, phase=Phase.FAILED)

    user.kubectl.wait(f"fij/{name}", "condition=Failed", seconds=5)
    row = user.row(name)
    assert (row["PHASE"], row["REASON"]) == (Phase.FAILED, Reason.INVALID_SPEC)
    assert user.condition(name, Condition.ACCEPTED)["status"] == "False"
    assert user.condition(name, Condition.STALLED)["status"] == "True"
    user.poke(name, world.operator)
    assert user.warnings(name) == [Reason.INVALID_SPEC]
    assert not [key for key in user.children(name) if key.startswith(("Job/", "Pod/"))]

    user.apply(job_of(name), "--server-side", "--force-conflicts")

    user.until_phase(name, Phase.RUNNING)
    assert user.condition(name, Condition.FAILED)["status"] == "False"
    assert user.warnings(name) == [Reason.INVALID_SPEC]


REFUSED: dict[str, tuple[Object, str]] = {
    "two groups with one name": (
        job_of("twins", {"workers": [*group(), *group()]}),
        'spec.workers[1]: Duplicate value: map[string]interface {}{"name":"edge"}',
    ),
    "a name too long": (job_of("a" * 41), "metadata.name is too long: write at most 40 characters"),
    "a name of an algorithm too long": (
        job_of("long", {"algorithm": {"name": "a" * 254}}),
        "spec.algorithm.name: Too long: may not be more than 253 bytes",
    ),
}


@pytest.mark.parametrize(("job", "words"), REFUSED.values(), ids=REFUSED)
def test_what_the_api_server_refuses_by_itself(user: User, job: Object, words: str) -> None:
    with pytest.raises(KubectlError) as refusal:
        user.apply(job)
    print(refusal.value)
    assert words in str(refusal.value)


# The job is valid, and something in the cluster keeps it from starting.


def test_a_service_of_somebody_else_under_our_name(user: User, world: World) -> None:
    name = f"shop-{Child.AGGREGATION}"
    user.kubectl.run("create", "service", "clusterip", name, "--tcp=80")
    user.apply(job_of("shop"))

    words = (f"Service/{name} of this namespace is not this job's", "rename the job, or remove that object")
    user.until_told("shop", Reason.NAME_CONFLICT, *words, phase=Phase.PENDING)

    assert user.row("shop")["REASON"] == Reason.NAME_CONFLICT
    assert user.condition("shop", Condition.STALLED)["status"] == "True"
    user.poke("shop", world.operator)
    assert user.warnings("shop") == [Reason.NAME_CONFLICT]
    assert user.children("shop") == {}
    assert user.kubectl.get("service", name)["spec"]["ports"][0]["port"] == 80

    user.kubectl.delete("service", name)
    user.kubectl.run("annotate", "fij", "shop", "mended=true")  # or within half a minute

    user.until_phase("shop", Phase.RUNNING)


def test_a_node_that_does_not_exist(user: User, world: World) -> None:
    def exposed(node: str) -> Object:
        return job_of("far", {"aggregator": {"expose": {"type": "HostPort"}, "nodeName": node}})

    user.apply(exposed("fake-nowhere"))

    words = ("spec.aggregator.nodeName: there is no node fake-nowhere", f"write one of: {NODE}")
    user.until_told("far", Reason.ENDPOINT_UNKNOWN, *words, phase=Phase.PENDING)

    user.poke("far", world.operator)
    assert user.warnings("far") == [Reason.ENDPOINT_UNKNOWN]
    assert user.children("far") == {}
    user.apply(exposed(NODE))
    user.until_phase("far", Phase.RUNNING)


def _make_claim(user: User, nodes: FakeNodes) -> None:
    space = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {**space, "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/srv/photos"}}
    name = f"{user.namespace}-photos"
    user.api.create(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume}
    )
    claim = {**space, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "photos", "namespace": user.namespace}
    user.api.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim}
    )


def _add_gpus(user: User, nodes: FakeNodes) -> None:
    nodes("fake-gpu", capacity={"nvidia.com/gpu": "4"})


def _label(user: User, nodes: FakeNodes) -> None:
    user.api.patch("Node", NODE, {"metadata": {"labels": {"disk": "ssd"}}})


def _free_port(user: User, nodes: FakeNodes) -> None:
    user.kubectl.delete("fij", "first")


HOST_PORT: Object = {"aggregator": {"expose": {"type": "HostPort"}, "nodeName": NODE}}
UNPLACED: dict[str, tuple[Object, Reason, tuple[str, ...], Callable[[User, FakeNodes], None]]] = {
    "gpu": (
        {"workers": group(gpus={"count": 1})},
        Reason.UNSCHEDULABLE,
        ("trainworker-edge-0", "Insufficient nvidia.com/gpu", "add or free such a node", "lower gpus.count"),
        _add_gpus,
    ),
    "selector": (
        {"workers": group(podTemplate={"spec": {"nodeSelector": {"disk": "ssd"}}})},
        Reason.UNSCHEDULABLE,
        ("trainworker-edge-0", "didn't match Pod's node affinity/selector", "label a node as the job asks"),
        _label,
    ),
    "claim": (
        {"dataset": {"volume": {"persistentVolumeClaim": {"claimName": "photos"}}}},
        Reason.UNSCHEDULABLE,
        ("aggregator", 'persistentvolumeclaim "photos" not found', "make the claim"),
        _make_claim,
    ),
    "port": (
        HOST_PORT,
        Reason.PORT_TAKEN,
        ("aggregator", "didn't have free ports", "another pod holds the port: end it", "expose.port"),
        _free_port,
    ),
}


@pytest.mark.parametrize(("change", "reason", "words", "mend"), UNPLACED.values(), ids=UNPLACED)
def test_pods_that_find_no_node(
    user: User,
    world: World,
    node: FakeNodes,
    change: Object,
    reason: Reason,
    words: tuple[str, ...],
    mend: Callable[[User, FakeNodes], None],
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id
    if reason is Reason.PORT_TAKEN:
        user.apply(job_of("first", change))
        user.until_phase("first", Phase.RUNNING)
    user.apply(job_of(name, change))

    message = user.until_told(name, reason, *words, phase=Phase.STARTING)

    assert "preemption" not in message
    row = user.row(name)
    assert (row["PHASE"], row["REASON"]) == (Phase.STARTING, reason)
    for kind, status in ((Condition.DEGRADED, "True"), (Condition.PROGRESSING, "False")):
        assert (user.condition(name, kind)["status"], user.condition(name, kind)["reason"]) == (
            status,
            reason,
        )
    user.poke(name, world.operator)
    assert user.warnings(name) == [reason]

    mend(user, node)

    user.until_phase(name, Phase.RUNNING, seconds=90)
    until(
        lambda: user.condition(name, Condition.DEGRADED)["status"] == "False", "everything to be fine again"
    )
    assert user.warnings(name) == [reason]


def test_a_pod_template_that_only_the_api_server_finds_wrong(user: User, world: World) -> None:
    template = {"spec": {"tolerations": [{"operator": "Sometimes"}]}}
    user.apply(job_of("sometimes", {"workers": group(podTemplate=template)}))

    words = ("group edge", "tolerations[1].operator", '"Sometimes"', "podTemplate")
    user.until_told("sometimes", Reason.INVALID_SPEC, *words)

    user.poke("sometimes", world.operator)
    assert user.warnings("sometimes") == [Reason.INVALID_SPEC]


def quota(namespace: str, pods: int) -> Object:
    """Return a quota."""
    metadata = {"name": "small", "namespace": namespace}
    hard = {"pods": str(pods)}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}


@pytest.mark.usefixtures("crd", "node")
def test_a_quota(control_plane: Cluster, api: Api, namespace: str, tmp_path: Path) -> None:
    api.create(quota(namespace, 1))
    until(lambda: (api.get("ResourceQuota", "small", namespace).get("status") or {}).get("hard"), "the quota")
    with serving(control_plane, tmp_path, namespace) as (user, process):
        user.apply(job_of("digits"))

        words = ("exceeded quota: small", "limited: pods=1", "have the ResourceQuota raised")
        user.until_told("digits", Reason.QUOTA_EXCEEDED, *words, phase=Phase.STARTING)

        user.poke("digits", process)
        assert user.warnings("digits") == [Reason.QUOTA_EXCEEDED]
        api.patch("ResourceQuota", "small", {"spec": {"hard": {"pods": "9"}}}, namespace=namespace)
        user.until_phase("digits", Phase.RUNNING, seconds=90)


@pytest.mark.usefixtures("crd", "node")
def test_host_paths_where_restricted_is_enforced(control_plane: Cluster, api: Api, tmp_path: Path) -> None:
    namespace = new_namespace(api, enforce="restricted")
    with serving(control_plane, tmp_path, namespace) as (user, process):
        user.apply(job_of("digits", {"dataset": {"volume": {"hostPath": {"path": "/srv/photos"}}}}))

        words = (
            "enforces Pod Security restricted:latest",
            'volume "data" uses restricted volume type "hostPath"',
            "a PersistentVolumeClaim whose `local` PersistentVolume lies on the node",
        )
        user.until_told("digits", Reason.POD_SECURITY_VIOLATION, *words, phase=Phase.STARTING)

        user.poke("digits", process)
        assert user.warnings("digits") == [Reason.POD_SECURITY_VIOLATION]
        change = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
        api.patch("Namespace", namespace, change)
        user.until_phase("digits", Phase.RUNNING, seconds=90)
    api.delete("Namespace", namespace)


@pytest.mark.usefixtures("crd", "node")
def test_a_namespace_that_goes(control_plane: Cluster, api: Api, tmp_path: Path) -> None:
    own = control_plane.control_plane
    if own is None:
        pytest.skip("the controllers of a cluster of the user's are not stopped")
    controllers = own.directory.processes().pid("kube-controller-manager")
    assert controllers is not None
    namespace = new_namespace(api)
    with serving(control_plane, tmp_path, namespace) as (user, process):
        user.apply(job_of("digits", {"suspend": True}))
        user.until_phase("digits", Phase.SUSPENDED)
        os.kill(controllers, signal.SIGSTOP)  # it would remove the job within a second
        try:
            api.delete("Namespace", namespace)
            user.kubectl.run("patch", "fij", "digits", "--type=merge", '--patch={"spec":{"suspend":false}}')
            words = (f"namespace {namespace}", "is being deleted", "apply the job in another namespace")
            user.until_told("digits", Reason.NAMESPACE_TERMINATING, *words, phase=Phase.PENDING)
            user.poke("digits", process)
            assert user.warnings("digits") == []  # an Event is an object, too
            with pytest.raises(KubectlError, match="because it is being terminated"):
                user.apply(job_of("another"))
        finally:
            os.kill(controllers, signal.SIGCONT)

        def gone() -> bool:
            return not [item for item in api.list("Namespace") if item["metadata"]["name"] == namespace]

        until(gone, f"namespace {namespace} to go: nothing of ours holds it", seconds=60)


# The job runs, and something happens to it.


def test_the_secret_deleted_while_running(user: User, world: World) -> None:
    user.apply(job_of("vault", DURABLE))
    user.until_phase("vault", Phase.RUNNING)
    secret = f"vault-{Child.CREDENTIALS}"
    before = user.children("vault")

    user.kubectl.delete("secret", secret)
    user.poke("vault", world.operator)

    words = (
        f"Secret {secret} was deleted",
        "running pods go on",
        "set spec.suspend to true and back to false",
    )
    user.until_told("vault", Reason.CREDENTIALS_LOST, *words, phase=Phase.RUNNING)
    user.poke("vault", world.operator)
    assert user.warnings("vault") == [Reason.CREDENTIALS_LOST]
    now = user.children("vault")
    assert f"Secret/{secret}" not in now
    assert {key: uid for key, uid in now.items() if key.startswith("Pod/")} == {
        key: uid for key, uid in before.items() if key.startswith("Pod/")
    }

    for suspend, phase in (("true", Phase.SUSPENDED), ("false", Phase.RUNNING)):
        user.kubectl.run(
            "patch", "fij", "vault", "--type=merge", f'--patch={{"spec":{{"suspend":{suspend}}}}}'
        )
        user.until_phase("vault", phase, seconds=60)
    assert f"Secret/{secret}" in user.children("vault")
    assert user.condition("vault", Condition.DEGRADED)["status"] == "False"
    assert user.warnings("vault") == [Reason.CREDENTIALS_LOST]


def test_an_edit_that_cannot_change_a_running_job(user: User) -> None:
    user.apply(job_of("stone"))
    user.until_phase("stone", Phase.RUNNING)

    with pytest.raises(KubectlError, match="the job has started: only ") as refusal:
        user.apply(job_of("stone", {"seed": 7}))
    assert "Delete the job and apply it anew for the rest" in str(refusal.value)
    user.apply(job_of("stone", {"algorithm": {"parameters": {"unknown": 1}}}))

    def told() -> str:
        accepted = user.condition("stone", Condition.ACCEPTED)
        return str(accepted["message"]) if accepted["reason"] == Reason.SPEC_CHANGE_IGNORED else ""

    message = until(told, "the edit to be answered")
    print(message)
    assert "spec.algorithm.parameters.unknown: unknown parameter" in message
    assert "delete the job and apply it anew" in message
    assert user.warnings("stone") == [Reason.SPEC_CHANGE_IGNORED]
    assert user.status("stone")["phase"] == Phase.RUNNING


DOTTED = "spec.algorithm.name: 'photos.algorithms:Mine' cannot be imported: No module named 'photos'"
ENDS: dict[str, tuple[Role, Ending, Reason, Phase, tuple[str, ...]]] = {
    "configuration": (
        Role.AGGREGATOR,
        Ending(42, FinalSummary(outcome="failed", exit_code=42, message=DOTTED).encode()),
        Reason.CONFIGURATION_ERROR,
        Phase.FAILED,
        (DOTTED,),
    ),
    "data": (
        Role.WORKER,
        Ending(ExitCode.DATA, "/data: the directory is empty: check volume and path"),
        Reason.DATA_ERROR,
        Phase.RUNNING,
        ("trainworker-edge-0: /data: the directory is empty", "spec.workers[].runAsUser", "is not replaced"),
    ),
    "version": (
        Role.WORKER,
        Ending(
            ExitCode.REFUSED, "this worker runs engram 0.0.9 and the aggregator engram 0.1.0: use one image"
        ),
        Reason.WORKER_REFUSED,
        Phase.RUNNING,
        ("trainworker-edge-0: this worker runs engram 0.0.9", "use one image", "is not replaced"),
    ),
    "memory": (
        Role.WORKER,
        Ending(137, reason="OOMKilled"),
        Reason.OUT_OF_MEMORY,
        Phase.RUNNING,
        ("trainworker-edge-0: killed for memory", "Kubernetes tries again", "limits.memory", "batchSize"),
    ),
    "aggregator-memory": (
        Role.AGGREGATOR,
        Ending(137, reason="OOMKilled"),
        Reason.OUT_OF_MEMORY,
        Phase.FAILED,
        ("killed for memory", "spec.aggregator.resources.limits.memory"),
    ),
}


@pytest.mark.parametrize(("role", "ending", "reason", "phase", "words"), ENDS.values(), ids=ENDS)
def test_a_pod_that_ends(
    user: User,
    world: World,
    role: Role,
    ending: Ending,
    reason: Reason,
    phase: Phase,
    words: tuple[str, ...],
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id
    user.apply(job_of(name, {"runPolicy": {"backoffLimit": 0 if phase is Phase.FAILED else 6}}))
    user.until_phase(name, Phase.RUNNING)
    pod = min(user.pods(name, role), key=lambda found: str(found["metadata"]["name"]))

    end_pod(user.api, pod, ending)

    message = user.until_told(name, reason, *words, phase=phase)
    if phase is Phase.FAILED:
        assert "Kubernetes tries again" not in message
        assert user.row(name)["PHASE"] == Phase.FAILED
    user.poke(name, world.operator)
    assert user.warnings(name) == [reason]
    if reason is Reason.OUT_OF_MEMORY and role is Role.WORKER:  # Kubernetes waits 10 s before the next pod
        until(lambda: user.status(name)["reason"] == Reason.TRAINING, "the worker to be back", seconds=60)


# The operator itself.


def test_a_job_of_another_manager_is_left_alone(user: User, world: World) -> None:
    user.apply(job_of("theirs", {"managedBy": "kueue.x-k8s.io/multikueue"}))
    user.poke("theirs", world.operator)
    assert user.children("theirs") == {}
    assert user.status("theirs") == {}
    assert user.events("theirs") == []


def ended(kubeconfig: Path, namespace: str) -> str:
    """Run an operator that cannot start; return the line that it leaves."""
    command = [sys.executable, "-m", "engram_operator", "--health-port", "0", "--namespace", namespace]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ENGRAM_OPERATOR_")}
    with subprocess.Popen(
        [*command, "--kubeconfig", str(kubeconfig)], stderr=subprocess.PIPE, text=True, env=clean
    ) as process:
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    (line,) = errors.splitlines()
    print(line)
    return str(line)


def test_the_crd_of_an_older_version(control_plane: Cluster, api: Api, crd: str, namespace: str) -> None:
    found = api.get("CustomResourceDefinition", crd)
    spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del spec["runPolicy"]["properties"]["ttlSecondsAfterFinished"]
    api.ask("PUT", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}", found)
    user = User(api, control_plane.kubectl.inside(namespace), namespace)
    user.apply(job_of("digits"))

    def told() -> str:
        line = ended(control_plane.kubeconfig, namespace)
        if "is of another version and does not know" not in line:
            raise NotYet(line)
        return line

    try:
        line = until(told, "the operator to see the older CRD")
        assert "spec.runPolicy.ttlSecondsAfterFinished" in line
        assert user.children("digits") == {}
        assert user.status("digits") == {}
        _, _, command = line.rpartition("run `")
        assert command == f"{INSTALL}`"
    finally:
        written = subprocess.run(
            [sys.executable, "-m", "engram", "crd"], capture_output=True, text=True, check=True
        )
        control_plane.kubectl.run("apply", "--server-side", "--filename=-", stdin=written.stdout)
    until(
        lambda: (
            "ttlSecondsAfterFinished" in json.dumps(api.ask("GET", f"/openapi/v3/apis/{GROUP}/v1alpha1").body)
        ),
        "the newest CRD to be served",
    )


def role(namespace: str, rights: tuple[Right, ...]) -> list[Object]:
    """Return a role with these rights, bound to the namespace's default account."""
    rules = [
        {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
        for right in rights
    ]
    metadata = {"name": "operator", "namespace": namespace}
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "operator"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        },
    ]


def without_secrets(rights: tuple[Right, ...]) -> tuple[Right, ...]:
    """Return the rights but for making Secrets."""
    return tuple(
        right._replace(verbs=("get", "patch")) if right.resource == "secrets" else right for right in rights
    )


@pytest.mark.usefixtures("crd", "node")
def test_a_right_that_the_operator_lacks(
    control_plane: Cluster, api: Api, namespace: str, tmp_path: Path
) -> None:
    user = User(api, control_plane.kubectl.inside(namespace), namespace)
    kubeconfig = control_plane.kubeconfig_of(namespace, "default", tmp_path)
    everything = (*RIGHTS, *RIGHTS_OUTSIDE)

    def grant(rights: tuple[Right, ...]) -> None:
        for item in role(namespace, rights):
            user.kubectl.apply(json.dumps(item))

    grant(without_secrets(everything))

    def told() -> str:
        line = ended(kubeconfig, namespace)
        if f"may not create secrets in namespace {namespace}: " not in line:
            raise NotYet(line)
        return line

    assert "bind it to the role engram-operator of deploy/" in until(told, "the operator to miss its right")
    grant(everything)
    with operator(kubeconfig, tmp_path / "operator.log", "--namespace", namespace) as process:
        grant(without_secrets(everything))
        review = ("auth", "can-i", "create", "secrets", f"--as=system:serviceaccount:{namespace}:default")

        def revoked() -> bool:
            try:
                return user.kubectl.run(*review).strip() == "no"
            except KubectlError:
                return True

        until(revoked, "the right to be revoked")
        user.apply(job_of("digits"))

        words = (f"{Child.CREDENTIALS}", 'cannot create resource "secrets"', "have an administrator grant")
        user.until_told("digits", Reason.POD_REFUSED, *words, phase=Phase.PENDING)
        user.poke("digits", process)
        assert user.warnings("digits") == [Reason.POD_REFUSED]

        grant(everything)
        user.until_phase("digits", Phase.RUNNING, seconds=90)
