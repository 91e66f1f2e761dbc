"""Bad input, and pods that find no node: what a user reads, and what mends it.

The operator runs as a process of its own against a real API server, its controllers and its scheduler; pods
run on a fake node. Beside every case a healthy job runs, which nothing may harm. What only a kubelet says is
in tests/e2e/test_explained.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engram.spec.names import Child, Condition, Phase, Reason
from tests.cluster.api import Object
from tests.cluster.fixtures import FakeNodes
from tests.cluster.kubectl import KubectlError
from tests.cluster.waiting import until
from tests.control.explaining import NODE, User, World, group, job_of

pytestmark = [pytest.mark.control, pytest.mark.timeout(240)]

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
    cloud: FakeNodes,
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

    mend(user, cloud)

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
