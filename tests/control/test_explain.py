"""Every way in which a pod is not fine: the reason, the cause in Kubernetes' or our own words, and a mend."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from engram.spec.names import Condition, Reason
from engram.spec.summary import FinalSummary
from engram_operator.model import ConditionView, PodView
from engram_operator.status.census import take_census
from engram_operator.status.conditions import squeeze
from engram_operator.status.ends import last_word
from engram_operator.status.explain import explain_pod, offline_since, slow_after
from engram_operator.status.finding import AGGREGATOR, WORST_FIRST, Finding, by_severity, summarise
from engram_operator.status.refusals import explain_refusal
from tests.control.builders import (
    NOW,
    ago,
    container,
    ended,
    false,
    node,
    observed,
    pending,
    pod,
    true,
    unschedulable,
    waiting,
    workers_view,
)

WORKER = "trainworker-edge-0"
SUMMARY = FinalSummary(outcome="failed", exit_code=42, message="spec.x: is wrong: write y").encode()


def explain(view: PodView, subject: str = WORKER, warning: str = "") -> Finding:
    found = explain_pod(view, subject, NOW, None, warning)
    assert found is not None
    return found


FINE = {
    "runs": pod(0),
    "pending without a verdict": pending(0),
    "being created": waiting(0, "ContainerCreating", conditions={"PodScheduled": true(since=ago(5))}),
    "just scheduled": pod(0, phase="Pending", conditions={"PodScheduled": true(since=ago(5))}),
    "done": ended(0, 0),
    "being deleted": pod(0, deleting=ago(-30)),
    "container done, pod not yet": pod(0, main=container("terminated", "Completed", exit_code=0)),
    "waits for its scheduling gates": pending(0, conditions={"PodScheduled": false("")}),
}


@pytest.mark.parametrize("view", FINE.values(), ids=FINE)
def test_fine(view: PodView) -> None:
    assert explain_pod(view, WORKER, NOW) is None


_ENGRAM = 'failed to create containerd task: exec: "engram": executable file not found in $PATH: unknown'

TABLE: dict[str, tuple[PodView, Reason, tuple[str, ...]]] = {
    # It finds no node
    "no room": (
        unschedulable(0, "0/3 nodes are available: 3 Insufficient cpu."),
        Reason.UNSCHEDULABLE,
        ("0/3 nodes are available: 3 Insufficient cpu", "lower requests"),
    ),
    "GPU where none is": (
        unschedulable(0, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        Reason.UNSCHEDULABLE,
        ("Insufficient nvidia.com/gpu", "gpus.count"),
    ),
    "selector that matches nothing": (
        unschedulable(0, "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."),
        Reason.UNSCHEDULABLE,
        ("didn't match", "placement"),
    ),
    "taint": (
        unschedulable(0, "0/1 nodes are available: 1 node(s) had untolerated taint {dedicated: x}."),
        Reason.UNSCHEDULABLE,
        ("untolerated taint", "toleration in podTemplate"),
    ),
    "claim missing": (
        unschedulable(0, '0/3 nodes are available: persistentvolumeclaim "data" not found.'),
        Reason.UNSCHEDULABLE,
        ('persistentvolumeclaim "data" not found', "make the claim"),
    ),
    "claim unbound": (
        pending(
            0,
            conditions={
                "PodScheduled": false(
                    "Unschedulable",
                    "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
                    ago(30),
                )
            },
        ),
        Reason.UNSCHEDULABLE,
        ("unbound", "make a PersistentVolume that fits"),
    ),
    "node not ready": (
        unschedulable(
            0, "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
        ),
        Reason.UNSCHEDULABLE,
        ("not-ready", "kubectl describe node"),
    ),
    "volume elsewhere": (
        unschedulable(0, "0/3 nodes are available: 3 node(s) had volume node affinity conflict."),
        Reason.UNSCHEDULABLE,
        ("another placement",),
    ),
    "host port taken": (
        unschedulable(
            0, "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        ),
        Reason.PORT_TAKEN,
        ("didn't have free ports", "expose.port"),
    ),
    "GPU of another maker": (
        unschedulable(
            0,
            "0/3 nodes are available: 3 Insufficient amd.com/gpu. preemption: 0/3 nodes are available: 3 No "
            "preemption victims found for incoming pod.",
        ),
        Reason.UNSCHEDULABLE,
        ("Insufficient amd.com/gpu: no node has that many free", "gpus.count"),
    ),
    "no node at all": (
        unschedulable(0, "no nodes available to schedule pods"),
        Reason.UNSCHEDULABLE,
        ("add a node",),
    ),
    "other words of the scheduler": (
        unschedulable(0, "0/0 nodes are available."),
        Reason.UNSCHEDULABLE,
        ("0/0 nodes are available", "see placement"),
    ),
    # Its container does not start
    "image not found": (
        waiting(0, "ErrImagePull", 'rpc error: failed to pull "nowhere/x:1": not found'),
        Reason.IMAGE_PULL_FAILED,
        ("nowhere/x:1", "imagePullSecrets"),
    ),
    "image pull backs off": (
        waiting(0, "ImagePullBackOff", 'Back-off pulling image "nowhere/x:1"'),
        Reason.IMAGE_PULL_FAILED,
        ("ImagePullBackOff", "registry"),
    ),
    "no image name": (
        waiting(0, "InvalidImageName", "couldn't parse image name: UPPER"),
        Reason.IMAGE_PULL_FAILED,
        ("UPPER", "REGISTRY/NAME:TAG"),
    ),
    "image not on the node": (
        waiting(0, "ErrImageNeverPull", "Container image is not present with pull policy of Never"),
        Reason.IMAGE_PULL_FAILED,
        ("edge0", "load it there"),
    ),
    "config error": (
        waiting(0, "CreateContainerConfigError", 'secret "token" not found'),
        Reason.CONTAINER_NOT_CREATED,
        ('secret "token" not found', "make the object that it names"),
    ),
    "image runs as root": (
        waiting(0, "CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
        Reason.CONTAINER_NOT_CREATED,
        ("runAsNonRoot", "user is not root"),
    ),
    "container not created": (
        waiting(0, "CreateContainerError", "context deadline exceeded"),
        Reason.CONTAINER_NOT_CREATED,
        ("context deadline exceeded", "another podTemplate"),
    ),
    "image without engram, waiting": (
        waiting(0, "RunContainerError", _ENGRAM),
        Reason.IMAGE_UNUSABLE,
        ("no command engram", "spec.workers[].image"),
    ),
    "image without engram": (
        ended(0, 128, _ENGRAM, "StartError"),
        Reason.IMAGE_UNUSABLE,
        ("no command engram", "runtime image"),
    ),
    "image of another processor": (
        ended(0, 128, 'exec "/usr/bin/engram": exec format error', "StartError"),
        Reason.IMAGE_UNUSABLE,
        ("another processor", "architecture"),
    ),
    "container cannot start": (
        ended(0, 128, "mkdir /x: permission denied", "StartError"),
        Reason.CONTAINER_NOT_CREATED,
        ("permission denied", "podTemplate"),
    ),
    "long in creation": (
        waiting(0, "ContainerCreating", conditions={"PodScheduled": true(since=ago(91))}),
        Reason.MOUNT_FAILED,
        ("edge0", "kubectl describe pod"),
    ),
    "long on a node without a container": (
        pod(0, phase="Pending", conditions={"PodScheduled": true(since=ago(91))}),
        Reason.MOUNT_FAILED,
        ("in creation",),
    ),
    # It ended
    "configuration error": (
        ended(0, 42, "noise\nengram: spec.x: is wrong: write y\n"),
        Reason.CONFIGURATION_ERROR,
        ("spec.x: is wrong: write y",),
    ),
    "configuration error of the aggregator": (
        ended(0, 42, SUMMARY),
        Reason.CONFIGURATION_ERROR,
        ("write y",),
    ),
    "no last line": (ended(0, 42), Reason.CONFIGURATION_ERROR, ("configuration error",)),
    "loss not finite": (
        ended(0, 42, "NumericalError: task 1, round 2: the loss is nan in step 3: lower the learning rate"),
        Reason.NUMERICAL_ERROR,
        ("task 1, round 2: the loss", "learning rate"),
    ),
    "disk full": (
        ended(0, 42, "CheckpointFailed: the disk is full: make room; then continue with --resume"),
        Reason.CHECKPOINT_FAILED,
        ("make room; it is not replaced",),
    ),
    "memory that it was not given": (
        ended(0, 42, "OutOfMemory: out of memory: lower training.batchSize; then continue with --resume"),
        Reason.OUT_OF_MEMORY,
        ("lower training.batchSize; it is not replaced",),
    ),
    "data missing": (
        ended(0, 43, "DataError: /data: no such directory"),
        Reason.DATA_ERROR,
        ("/data: no such directory", "delete the job and apply it anew"),
    ),
    "data missing, in an image without reasons": (
        ended(0, 43, "/data: no such directory"),
        Reason.DATA_ERROR,
        ("/data: no such directory",),
    ),
    "loss not finite, in an image without reasons": (
        ended(0, 42, "task 1, round 2: the loss is nan in step 3: lower the learning rate"),
        Reason.CONFIGURATION_ERROR,
        ("the loss is nan in step 3: lower the learning rate",),
    ),
    "a library's own DataError": (
        ended(0, 1, "DataError: No numeric types to aggregate"),
        Reason.WORKER_FAILED,
        ("exit code 1: DataError: No numeric types to aggregate",),
    ),
    "a reason of a later version": (
        ended(0, 42, "SolarFlare: wait for the night"),
        Reason.CONFIGURATION_ERROR,
        ("SolarFlare: wait for the night",),
    ),
    "another version": (
        ended(0, 44, "WorkerRefused: refused: the aggregator speaks version 2, this worker 1"),
        Reason.WORKER_REFUSED,
        ("version 2",),
    ),
    "told to stop": (
        ended(0, 75, "engram: stopped"),
        Reason.WORKER_RESTARTING,
        ("state saved", "starts it again"),
    ),
    "lost the aggregator": (
        ended(
            0, 75, "AggregatorUnreachable: no contact with the aggregator for 3600 s: TCP connection refused"
        ),
        Reason.AGGREGATOR_UNREACHABLE,
        ("(no contact with the aggregator for 3600 s: TCP connection refused)",),
    ),
    "lost the aggregator, in an image without reasons": (
        ended(0, 75, "no contact with the aggregator for 3600 s: TCP connection refused"),
        Reason.WORKER_RESTARTING,
        ("(no contact with the aggregator for 3600 s: TCP connection refused)",),
    ),
    "out of memory": (
        ended(0, 137, reason="OOMKilled", memory_limit="512Mi"),
        Reason.OUT_OF_MEMORY,
        ("limit 512Mi", "limits.memory", "batchSize"),
    ),
    "killed": (ended(0, 137), Reason.OUT_OF_MEMORY, ("most likely for memory",)),
    "crash": (
        ended(0, 1, "Traceback\nValueError: x"),
        Reason.WORKER_FAILED,
        ("exit code 1", "ValueError: x", "backoffLimit"),
    ),
    "crash without a word": (ended(0, 139), Reason.WORKER_FAILED, ("signal 11",)),
    "failed without a container": (
        pod(0, phase="Failed", message="Pod was rejected"),
        Reason.WORKER_FAILED,
        ("Pod was rejected",),
    ),
    # The node
    "GPU not admitted": (
        pod(
            0,
            phase="Failed",
            reason="UnexpectedAdmissionError",
            message="Allocate failed: no healthy devices",
        ),
        Reason.GPU_NOT_ADMITTED,
        ("no healthy devices", "device plugin"),
    ),
    "GPU taken": (
        pod(0, phase="Failed", reason="OutOfnvidia.com/gpu", message="Node didn't have enough resource"),
        Reason.GPU_NOT_ADMITTED,
        ("didn't have enough",),
    ),
    "node full": (
        pod(0, phase="Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"),
        Reason.UNSCHEDULABLE,
        ("cpu",),
    ),
    "port taken at admission": (
        pod(0, phase="Failed", reason="NodePorts", message="Predicate NodePorts failed"),
        Reason.PORT_TAKEN,
        ("edge0",),
    ),
    "evicted": (
        pod(0, phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        Reason.POD_EVICTED,
        ("low on resource: memory", "starts it again"),
    ),
    "drained": (
        ended(
            0, 75, conditions={"DisruptionTarget": true("EvictionByEvictionAPI", "Eviction API: evicting")}
        ),
        Reason.POD_EVICTED,
        ("Eviction API",),
    ),
    "lost by an edge agent": (
        ended(0, 137, reason="ContainerStatusUnknown"),
        Reason.NODE_OFFLINE,
        ("no failure of the process",),
    ),
    "lost by a power cut": (
        ended(0, 255, reason="Unknown"),
        Reason.NODE_OFFLINE,
        ("edge0 went down", "no failure of the process"),
    ),
    "node lost": (pod(0, phase="Failed", reason="NodeLost"), Reason.NODE_OFFLINE, ("edge0",)),
    "node out of touch": (
        pod(0, conditions={"Ready": false(since=ago(40))}),
        Reason.NODE_OFFLINE,
        ("edge0", "since 11:59:20 UTC", "not replaced"),
    ),
    "pod unknown": (pod(0, phase="Unknown"), Reason.NODE_OFFLINE, ("edge0",)),
}


@pytest.mark.parametrize(("view", "reason", "words"), TABLE.values(), ids=TABLE)
def test_a_pod_that_is_not_fine_is_explained(view: PodView, reason: Reason, words: tuple[str, ...]) -> None:
    found = explain(view)
    assert found.reason is reason, found
    for word in words:
        assert word in found.message
    assert found.sentence.startswith(f"{WORKER}: ")
    assert "\n" not in found.message
    assert len(found.message) < 800


@pytest.mark.parametrize(("view", "reason", "words"), TABLE.values(), ids=TABLE)
def test_every_reason_of_a_pod_may_stand_in_degraded(
    view: PodView, reason: Reason, words: tuple[str, ...]
) -> None:
    assert Condition.DEGRADED in reason.conditions
    assert reason in WORST_FIRST


WARNINGS = {
    "FailedMount": (
        'MountVolume.SetUp failed for volume "data": hostPath type check failed',
        Reason.MOUNT_FAILED,
    ),
    "FailedAttachVolume": ("AttachVolume.Attach failed for volume pvc-1", Reason.MOUNT_FAILED),
    "configmap": ('MountVolume.SetUp failed for volume "x" : configmap "x" not found', Reason.MOUNT_FAILED),
    "sandbox": ("Failed to create pod sandbox: plugin type=bridge failed", Reason.CONTAINER_NOT_CREATED),
}


@pytest.mark.parametrize(("warning", "reason"), WARNINGS.values(), ids=WARNINGS)
def test_what_only_an_event_tells(warning: str, reason: Reason) -> None:
    found = explain(
        waiting(0, "ContainerCreating", conditions={"PodScheduled": true(since=ago(91))}), warning=warning
    )
    assert found.reason is reason
    assert warning in found.message


def test_a_sandbox_that_hesitates_is_no_news() -> None:
    view = waiting(0, "ContainerCreating", conditions={"PodScheduled": true(since=ago(5))})
    assert explain_pod(view, WORKER, NOW, None, "Failed to create pod sandbox") is None


def test_a_pod_that_kubeedge_starts_a_minute_late_is_no_news() -> None:
    view = waiting(0, "ContainerCreating", conditions={"PodScheduled": true(since=ago(75))})
    assert explain_pod(view, WORKER, NOW) is None


def test_the_aggregator_is_spoken_of_as_such() -> None:
    assert "spec.aggregator.image" in explain(ended(None, 128, _ENGRAM, "StartError"), AGGREGATOR).message
    assert explain(ended(None, 75), AGGREGATOR).reason is Reason.AGGREGATOR_RESTARTING
    assert explain(ended(None, 1, "x"), AGGREGATOR).reason is Reason.AGGREGATOR_RESTARTING
    assert explain(pod(phase="Failed"), AGGREGATOR).reason is Reason.AGGREGATOR_RESTARTING
    assert "spec.aggregator.resources" in explain(ended(None, 137), AGGREGATOR).message


def summary(code: int, message: str, reason: str = "") -> str:
    return FinalSummary(outcome="failed", exit_code=code, message=message, reason=reason).encode()


SHORTAGE = "round 3 of task 1: 1 of 2 workers at the deadline of 600 s, missing x; lower quorum, or ..."


def test_a_round_that_gave_up_waiting() -> None:
    found = explain(ended(None, 42, summary(42, SHORTAGE, "QuorumNotReached")), AGGREGATOR)
    assert (found.reason, found.final) == (Reason.QUORUM_NOT_REACHED, True)
    assert found.message == f"{SHORTAGE}; then delete the job and apply it anew"
    old = explain(ended(None, 1, summary(1, SHORTAGE)), AGGREGATOR)
    assert old.reason is Reason.AGGREGATOR_RESTARTING, "words are not searched for a cause"
    assert SHORTAGE in old.message


@pytest.mark.parametrize("reason", ["Training", "DataError", "no reason", "x" * 64])
def test_a_reason_that_does_not_go_with_the_exit_code_is_passed_over(reason: str) -> None:
    found = explain(ended(None, 42, summary(42, "spec.x: wrong", reason)), AGGREGATOR)
    assert (found.reason, found.message[:13]) == (Reason.CONFIGURATION_ERROR, "spec.x: wrong")


def test_a_port_that_a_process_of_the_node_holds() -> None:
    words = "port 7363 of 0.0.0.0 is taken: end what listens there, or take another port"
    found = explain(ended(None, 42, summary(42, words, "PortTaken")), AGGREGATOR)
    assert (found.reason, found.final) == (Reason.PORT_TAKEN, True)
    assert found.message == (
        f"{words} (with hostNetwork any process of node cloud may hold it); then delete the job and apply it "
        "anew, or with another spec.aggregator.nodeName or podTemplate"
    )


@pytest.mark.parametrize(
    ("view", "nodes", "lost"),
    [
        (pod(0), None, False),
        (pod(0), (node("edge0"),), False),
        (pod(0), (node("edge0", ready=False),), True),
        (pod(0, conditions={"Ready": false()}), (node("edge0"),), False),
        (pod(0, conditions={"Ready": false(), "ContainersReady": false()}), None, False),
        (pod(0, conditions={"Ready": false()}), None, True),
        (pod(0, node=""), (node("edge0", ready=False),), False),
    ],
)
def test_a_node_that_is_out_of_touch(view: PodView, nodes: tuple[object, ...] | None, lost: bool) -> None:
    assert (offline_since(view, nodes) is not None) is lost  # type: ignore[arg-type]


def test_the_node_says_since_when() -> None:
    found = explain_pod(pod(0), WORKER, NOW, [node("edge0", ready=False)])
    assert found is not None
    assert found.since == ago(90)


PASSING = {
    "unbound": ("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.", 30),
    "claim unseen": ('0/3 nodes are available: persistentvolumeclaim "data" not found.', 5),
    "volume unseen": ("1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).", 5),
    "no volume yet": ("2 node(s) didn't find available persistent volumes to bind.", 5),
    "node booting": (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint "
        "{node.kubernetes.io/not-ready: }.",
        20,
    ),
    "room": ("0/3 nodes are available: 3 Insufficient cpu.", 0),
    "taint": ("0/1 nodes are available: 1 node(s) had untolerated taint {dedicated: x}.", 0),
}


@pytest.mark.parametrize(("words", "seconds"), PASSING.values(), ids=PASSING)
def test_what_mostly_passes_by_itself_is_told_when_it_lasts(words: str, seconds: int) -> None:
    view = unschedulable(0, words)
    begin = view.conditions["PodScheduled"].since
    assert begin is not None
    for after in range(seconds):
        assert explain_pod(view, WORKER, begin + timedelta(seconds=after)) is None
        assert slow_after(view, begin + timedelta(seconds=after)) == seconds - after
    found = explain_pod(view, WORKER, begin + timedelta(seconds=seconds))
    assert found is not None
    assert (found.reason, found.since) == (Reason.UNSCHEDULABLE, begin)
    assert slow_after(view, begin + timedelta(seconds=seconds)) is None


def test_a_conflict_of_the_scheduler_with_somebody_else_is_no_news() -> None:
    words = 'running PreBind plugin "VolumeBinding": Operation cannot be fulfilled on claim "data"'
    view = pending(0, conditions={"PodScheduled": false("SchedulerError", words, ago(4))})
    assert explain_pod(view, WORKER, NOW) is None
    assert explain(replace(view, conditions={"PodScheduled": false("SchedulerError", words, ago(5))}))


def test_creation_is_looked_at_again_in_time() -> None:
    view = waiting(0, "ContainerCreating", conditions={"PodScheduled": true(since=ago(20))})
    assert slow_after(view, NOW) == 70
    assert slow_after(view, NOW + timedelta(seconds=70)) is None
    assert slow_after(pod(0), NOW) is None
    assert slow_after(pending(0), NOW) is None


REFUSALS: dict[str, tuple[str, Reason, tuple[str, ...]]] = {
    "quota": (
        'Error creating: pods "digits-edge-0-x" is forbidden: exceeded quota: small, requested: cpu=2, used: '
        "cpu=0, limited: cpu=1",
        Reason.QUOTA_EXCEEDED,
        ("exceeded quota: small, requested: cpu=2", "have the ResourceQuota raised"),
    ),
    "quota asks for limits": (
        'Error creating: pods "x" is forbidden: failed quota: small: must specify limits.cpu for: main',
        Reason.QUOTA_EXCEEDED,
        ("must specify limits.cpu", "resources"),
    ),
    "limit range": (
        'Error creating: pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
        Reason.QUOTA_EXCEEDED,
        ("1Gi", "LimitRange"),
    ),
    "hostPath": (
        'Error creating: pods "x" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes '
        '(volume "data")',
        Reason.POD_SECURITY_VIOLATION,
        ("baseline:latest", 'hostPath volumes (volume "data")', "local", "PersistentVolumeClaim"),
    ),
    "hostPath under restricted": (
        'violates PodSecurity "restricted:latest": restricted volume types (volume "data" uses restricted '
        'volume type "hostPath")',
        Reason.POD_SECURITY_VIOLATION,
        ("restricted:latest", "PersistentVolumeClaim"),
    ),
    "hostPort": (
        'violates PodSecurity "baseline:latest": hostPort (container "main" uses hostPort 7363)',
        Reason.POD_SECURITY_VIOLATION,
        ("hostPort 7363", "NodePort", "privileged"),
    ),
    "hostNetwork": (
        'violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)',
        Reason.POD_SECURITY_VIOLATION,
        ("hostNetwork=true", "without hostNetwork"),
    ),
    "other field": (
        'violates PodSecurity "restricted:latest": runAsNonRoot != true (pod must not set it to false)',
        Reason.POD_SECURITY_VIOLATION,
        ("runAsNonRoot", "podTemplate"),
    ),
    "namespace goes": (
        'Error creating: pods "x" is forbidden: unable to create new content in namespace lab because it is '
        "being terminated",
        Reason.NAMESPACE_TERMINATING,
        ("being terminated", "another namespace"),
    ),
    "service account": (
        'Error creating: pods "x" is forbidden: error looking up service account lab/trainer: serviceaccount '
        '"trainer" not found',
        Reason.POD_REFUSED,
        ("lab/trainer", "make the service account"),
    ),
    "node port": (
        'Service "digits-node-port" is invalid: spec.ports[0].nodePort: Invalid value: 30000: provided '
        "port is already allocated",
        Reason.PORT_TAKEN,
        ("30000", "expose.port"),
    ),
    "webhook": (
        'admission webhook "policy.example" denied the request: no latest tag',
        Reason.POD_REFUSED,
        ("no latest tag", "webhook"),
    ),
    "invalid template": (
        'Job.batch "digits-edge" is invalid: spec.template.spec.containers[0].image: Required value',
        Reason.INVALID_SPEC,
        ("containers[0].image", "apply it again"),
    ),
    "node port out of range": (
        'Service "digits-node-port" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is '
        "not in the valid range. The range of valid ports is 30000-32767",
        Reason.INVALID_SPEC,
        ("30000-32767", "spec.aggregator.expose.port"),
    ),
    "a right that the operator lacks": (
        'secrets is forbidden: User "system:serviceaccount:engram-system:engram-operator" cannot create '
        'resource "secrets" in API group "" in the namespace "lab"',
        Reason.POD_REFUSED,
        ('cannot create resource "secrets"', "grant the operator that right"),
    ),
    "anything else": ("Error creating: the moon is full", Reason.POD_REFUSED, ("the moon is full",)),
}


@pytest.mark.parametrize(("message", "reason", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_explained(message: str, reason: Reason, words: tuple[str, ...]) -> None:
    found = explain_refusal(message, "group edge")
    assert found.reason is reason
    for word in words:
        assert word in found.message
    assert "Error creating" not in found.message
    assert {Condition.PROGRESSING, Condition.DEGRADED, Condition.STALLED} <= set(reason.conditions)


@pytest.mark.parametrize(
    ("message", "words", "reason"),
    [
        ("", "", None),
        ("\n\n", "", None),
        ("one\nengram: two\n\n", "two", None),
        (f"log\n{SUMMARY}\n", "spec.x: is wrong: write y", None),
        (summary(42, "x is nan", "NumericalError"), "x is nan", Reason.NUMERICAL_ERROR),
        ("one\nNumericalError: x is nan", "x is nan", Reason.NUMERICAL_ERROR),
        (
            "NumericalError: " + "x" * 5000,
            "x" * (399 - len("NumericalError: ")) + "…",
            Reason.NUMERICAL_ERROR,
        ),
        ("x" * 5000, "x" * 399 + "…", None),
    ],
)
def test_last_words(message: str, words: str, reason: Reason | None) -> None:
    assert last_word(message, 42) == (words, reason)


def test_the_worst_comes_first_and_the_others_are_named() -> None:
    mild = [Finding(Reason.WORKER_DISCONNECTED, "silent", f"w{index}") for index in range(8)]
    bad = Finding(Reason.IMAGE_PULL_FAILED, "no image", "w9")
    found = by_severity([*mild, bad])
    assert found[0] is bad
    text = summarise(found)
    assert text.startswith("w9: no image")
    assert "w0, w1, w2, w3, w4 and 3 more" in text


def test_the_aggregator_comes_before_a_worker_with_the_same_reason() -> None:
    worker, aggregator = Finding(Reason.OUT_OF_MEMORY, "x", "w0"), Finding(Reason.OUT_OF_MEMORY, "y")
    assert by_severity([worker, aggregator]) == (aggregator, worker)


def test_an_invalid_object_of_a_job_that_has_started_cannot_be_mended_in_place() -> None:
    message = 'Job.batch "digits-edge" is invalid: spec.template.spec.tolerations[1].operator: no'
    assert "delete the job and apply it anew" in explain_refusal(message, "group edge", started=True).message
    assert "delete the job" not in explain_refusal(message, "group edge").message


def test_a_failure_stays_told_while_its_successor_comes() -> None:
    """Else status would change its mind with every try of an image that cannot work."""
    first = replace(ended(0, 128, _ENGRAM, "StartError"), name="a", created=ago(90))
    second = replace(
        ended(0, 128, _ENGRAM, "StartError"),
        name="b",
        created=ago(50),
        main=container("terminated", "StartError", _ENGRAM, exit_code=128, finished=ago(49)),
    )
    coming = replace(
        waiting(0, "ContainerCreating", conditions={"PodScheduled": true(since=ago(5))}), name="c"
    )
    for pods in ([first], [first, second], [first, second, replace(coming, created=ago(5))]):
        seen = observed([workers_view(1)], pods)
        (worker,) = take_census(
            {"edge": 1}, {"": "digits-aggregation", "edge": "digits-edge"}, seen, NOW
        ).workers
        assert worker.finding is not None
        assert (worker.finding.reason, worker.finding.since) == (Reason.IMAGE_UNUSABLE, ago(3))


def test_a_failure_is_over_when_its_successor_runs() -> None:
    seen = observed([workers_view(1)], [replace(ended(0, 137), name="a", created=ago(90)), pod(0)])
    (worker,) = take_census({"edge": 1}, {"": "digits-aggregation", "edge": "digits-edge"}, seen, NOW).workers
    assert worker.finding is None


@pytest.mark.parametrize("length", [20, 256])
def test_what_is_squeezed_keeps_its_beginning_and_its_end(length: int) -> None:
    assert squeeze("short\ntext", length) == "short text"
    found = squeeze("cause " + "x" * 500 + " mend", length)
    assert len(found) == length
    assert (found[:5], found[-4:]) == ("cause", "mend")


def test_several_findings_of_one_subject_are_one_sentence() -> None:
    found = by_severity([Finding(Reason.OUT_OF_MEMORY, "a", "w0"), Finding(Reason.POD_EVICTED, "b", "w0")])
    assert summarise(found) == "w0: a"


def test_every_reason_of_degraded_has_its_place() -> None:
    unranked = {
        reason for reason in Reason if Condition.DEGRADED in reason.conditions and reason not in WORST_FIRST
    }
    assert unranked == {Reason.AS_EXPECTED}


def test_condition_views_of_nodes_may_be_unknown() -> None:
    assert not ConditionView("Unknown").true
