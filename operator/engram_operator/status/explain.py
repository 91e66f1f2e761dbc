"""Why a pod is not fine: Kubernetes' own words, put into one sentence with what to do.

Pure: (pod, what else is known) -> Finding or None. Every branch is a row of a table of the tests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from engram.spec.names import Reason
from engram_operator.model import ContainerView, NodeView, PodView
from engram_operator.status.conditions import shorten
from engram_operator.status.ends import explain_end, unusable_image
from engram_operator.status.finding import ANEW, Finding

LONG_CREATION = timedelta(seconds=90)
"""A container that is created for longer has a volume that cannot be mounted, or a large image.

An edgecore whose question was lost asks again after 60 s: such a pod starts by itself (docs/kubeedge.md).
"""
_UNBOUND = "unbound immediate PersistentVolumeClaims"
_NODE_TAINT = r"untolerated taint \{node\.kubernetes\.io/"
PASSING: tuple[tuple[str, timedelta], ...] = (
    (
        _UNBOUND,
        timedelta(seconds=30),
    ),  # Kubernetes looks at all claims every 15 s, and then at the pod within 10
    (_NODE_TAINT, timedelta(seconds=20)),  # a node that comes up, or was late to say that it is well
    # The scheduler is told of pods, claims and volumes on separate ways, or somebody else wrote in between.
    (r"persistent ?volume|non-existent pv|^SchedulerError", timedelta(seconds=5)),
)
"""Patterns in what the scheduler says, and for how long that may pass by itself before it is told."""

_PULLS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
}
_NOT_CREATED = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PreCreateHookError",
    "PreStartHookError",
    "PostStartHookError",
}
_MOUNT_WORDS = ("MountVolume", "AttachVolume", "Unable to attach or mount", "not found", "mount")

_SCHEDULER: tuple[tuple[str, str], ...] = (
    (
        "didn't have free ports",
        f"another pod holds the port: end it, or {ANEW} with another spec.aggregator.expose.port or nodeName",
    ),
    (
        _UNBOUND,
        "make a PersistentVolume that fits the claim, or a storage class that makes one",
    ),
    ("persistentvolumeclaim", f"make the claim, or {ANEW} with another one"),
    (
        "volume node affinity conflict",
        f"the claim's volume lies on a node that the placement excludes: {ANEW} with another placement or "
        "claim",
    ),
    (
        r"Insufficient [a-z0-9.-]+/",
        f"no node has that many free: add or free such a node, or {ANEW} with a lower gpus.count",
    ),
    ("Insufficient|Too many pods", f"add or free a node, or {ANEW} with lower requests in resources"),
    (
        "didn't match Pod's node affinity/selector",
        "label a node as the job asks (placement edge: node-role.kubernetes.io/edge), or "
        f"{ANEW} with another placement, nodeName or podTemplate",
    ),
    (_NODE_TAINT, "kubectl describe node says what a node lacks; the pod starts when one is well"),
    (
        "untolerated taint",
        f"remove the taint, or {ANEW} with a toleration in podTemplate or another placement",
    ),
    ("no nodes available", "add a node"),
)
"""Patterns in the scheduler's words, the more telling one first, and what to do."""


def explain_pod(
    pod: PodView,
    subject: str,
    now: datetime,
    nodes: Sequence[NodeView] | None = None,
    warning: str = "",
) -> Finding | None:
    """Return what is not fine with a pod; None: it runs, comes up or is done.

    Args:
        pod: the newest pod of its worker, or of the aggregator.
        subject: whose pod it is.
        now: the time.
        nodes: None where nodes may not be read.
        warning: message of its newest Warning Event, if known.
    """
    if pod.phase == "Succeeded" or (pod.main is not None and pod.main.exit_code == 0):
        return None
    if pod.phase == "Failed" or (pod.main is not None and pod.main.state == "terminated"):
        return explain_end(pod, subject)
    offline = offline_since(pod, nodes)
    if offline is not None:
        since, node = offline
        when = f" since {since:%H:%M:%S} UTC" if since else ""
        return Finding(
            Reason.NODE_OFFLINE,
            f"node {node} is out of touch with the cluster{when}; the pod goes on where it is and is not "
            "replaced: mend the node or its network",
            subject,
            since,
        )
    if pod.deleting is not None:
        return None
    return _unscheduled(pod, subject, now) or _waiting(pod, subject, now, warning)


def offline_since(pod: PodView, nodes: Sequence[NodeView] | None) -> tuple[datetime | None, str] | None:
    """Return since when the pod's node has been out of touch, and its name; None: it is not.

    Without nodes to read, the node controller's mark says it: it takes Ready from the pods of a lost node and
    leaves ContainersReady, which the kubelet always changes together with Ready.
    """
    if not pod.node:
        return None
    ready = pod.conditions.get("Ready")
    for node in nodes or ():
        if node.name == pod.node and node.ready is not None:
            return None if node.ready.true else (node.ready.since, pod.node)
    if pod.phase == "Unknown" or pod.reason == "NodeLost":
        return (ready.since if ready else None), pod.node
    containers = pod.conditions.get("ContainersReady")
    if ready is not None and not ready.true and containers is not None and containers.true:
        return ready.since, pod.node
    return None


def _unscheduled(pod: PodView, subject: str, now: datetime) -> Finding | None:
    scheduled = pod.conditions.get("PodScheduled")
    if scheduled is None or scheduled.true or not scheduled.reason or _passing(pod, now) > timedelta():
        return None
    # What preemption could not do follows, and helps nobody.
    words = shorten(scheduled.message.partition(" preemption: ")[0], 300).rstrip(".")
    mend = next(
        (text for pattern, text in _SCHEDULER if re.search(pattern, words)), "see placement and resources"
    )
    reason = Reason.UNSCHEDULABLE
    if "didn't have free ports" in scheduled.message:
        reason = Reason.PORT_TAKEN
    since = scheduled.since or pod.created
    return Finding(reason, f"no node takes its pod: {words or scheduled.reason}: {mend}", subject, since)


def _waiting(pod: PodView, subject: str, now: datetime, warning: str) -> Finding | None:
    main = pod.main
    if main is None or main.state != "waiting":
        return _slow(pod, subject, now, warning) if main is None and pod.node else None
    if main.reason == "InvalidImageName":
        return _finding(
            Reason.IMAGE_PULL_FAILED, main, f"{ANEW} with an image written as REGISTRY/NAME:TAG", subject, pod
        )
    if main.reason == "ErrImageNeverPull":
        return _finding(
            Reason.IMAGE_PULL_FAILED,
            main,
            f"the image is not on node {pod.node} and may not be pulled: load it there, or change the pull "
            "policy",
            subject,
            pod,
        )
    if main.reason in _PULLS:
        return _finding(
            Reason.IMAGE_PULL_FAILED,
            main,
            f"it is tried again: load it on node {pod.node}, mend the registry or the Secret of "
            f"spec.imagePullSecrets, or {ANEW} with another image",
            subject,
            pod,
        )
    if main.reason in _NOT_CREATED:
        return unusable_image(main.message, subject, pod.created) or _finding(
            Reason.CONTAINER_NOT_CREATED, main, _mend_of_creation(main.message), subject, pod
        )
    return _slow(pod, subject, now, warning)


def _mend_of_creation(message: str) -> str:
    if "runAsNonRoot" in message or "run as root" in message:
        return f"{ANEW} with runAsUser, or with an image whose user is not root"
    if "not found" in message:
        return f"make the object that it names, or {ANEW} with another name in podTemplate"
    return f"{ANEW} with another podTemplate"


def _slow(pod: PodView, subject: str, now: datetime, warning: str) -> Finding | None:
    """A pod that has a node and does not start: its status says nothing of volumes."""
    since = _scheduled_since(pod)
    if warning and any(word in warning for word in _MOUNT_WORDS):
        return Finding(
            Reason.MOUNT_FAILED,
            f"a volume cannot be mounted on node {pod.node}: {shorten(warning, 300).rstrip('.')}: make what "
            f"it names and the pod starts, or {ANEW} with another volume",
            subject,
            since,
        )
    if since is None or now - since < LONG_CREATION:
        return None
    if warning:
        return Finding(
            Reason.CONTAINER_NOT_CREATED,
            f"node {pod.node} does not start the pod: {shorten(warning, 300).rstrip('.')}: "
            f"see kubectl describe pod {pod.name}",
            subject,
            since,
        )
    return Finding(
        Reason.MOUNT_FAILED,
        f"its container has been in creation on node {pod.node} since {since:%H:%M:%S} UTC: a volume is "
        f"missing or the image is large; kubectl describe pod {pod.name} says which",
        subject,
        since,
    )


def _passing(pod: PodView, now: datetime) -> timedelta:
    """Return for how long what keeps the pod from a node may still pass by itself."""
    scheduled = pod.conditions.get("PodScheduled")
    if scheduled is None or scheduled.true:
        return timedelta()
    words = f"{scheduled.reason}: {scheduled.message}"
    patience = next((limit for pattern, limit in PASSING if re.search(pattern, words)), timedelta())
    # At most what was allowed, also where this clock is behind that of the control plane.
    return min(patience, (scheduled.since or pod.created or now) + patience - now)


def slow_after(pod: PodView, now: datetime) -> float | None:
    """Return the seconds after which a pod that waits becomes a finding; None: it is none, or one already."""
    passing = _passing(pod, now)
    if passing > timedelta():
        return passing.total_seconds()
    main, since = pod.main, _scheduled_since(pod)
    if pod.phase != "Pending" or since is None or (main is not None and main.state != "waiting"):
        return None
    left = min(LONG_CREATION, since + LONG_CREATION - now).total_seconds()
    return left if left > 0 else None


def _scheduled_since(pod: PodView) -> datetime | None:
    scheduled = pod.conditions.get("PodScheduled")
    if not pod.node or scheduled is None or not scheduled.true:
        return None
    return scheduled.since or pod.created


def _finding(reason: Reason, main: ContainerView, mend: str, subject: str, pod: PodView) -> Finding:
    words = shorten(main.message, 300).rstrip(".")
    return Finding(reason, f"{main.reason}{': ' + words if words else ''}: {mend}", subject, pod.created)
