"""What the pure part of the operator takes and returns: the observed world, and the plan.

Views keep of Kubernetes' objects what decisions need and nothing else: the operator holds thousands of them.
Every `from_object` takes plain data as the API server sends it and never fails on an absent field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from engram.spec.compact import CompactReport
from engram.spec.names import (
    MAIN_CONTAINER,
    Annotation,
    CredentialsKey,
    Label,
)

Object = dict[str, Any]
"""A Kubernetes object as plain data."""

_INDEX = re.compile(r"[0-9]{1,6}")
"""A completion index; whoever may make pods may write anything into the annotation."""


class JobKey(NamedTuple):
    """Which FederatedIncrementalJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_time(text: str | None) -> datetime | None:
    """Return the time that Kubernetes wrote (RFC 3339, UTC); None for an absent one."""
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class ConditionView:
    """One condition of a pod, Job or node."""

    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None

    @property
    def true(self) -> bool:
        """Whether it holds."""
        return self.status == "True"


def conditions_of(status: Mapping[str, Any]) -> dict[str, ConditionView]:
    """Return the conditions of an object's status by type."""
    return {
        item["type"]: ConditionView(
            item.get("status", "Unknown"),
            item.get("reason") or "",
            item.get("message") or "",
            parse_time(item.get("lastTransitionTime")),
        )
        for item in status.get("conditions") or ()
    }


@dataclass(frozen=True, slots=True)
class ContainerView:
    """State of one container of a pod."""

    name: str
    state: Literal["waiting", "running", "terminated"] = "waiting"
    reason: str = ""
    message: str = ""
    """When terminated: the termination message, our processes' last word."""
    exit_code: int | None = None
    started: datetime | None = None
    finished: datetime | None = None

    @classmethod
    def from_object(cls, item: Mapping[str, Any]) -> ContainerView:
        """Read an entry of containerStatuses."""
        state = item.get("state") or {}
        for name in ("terminated", "running", "waiting"):
            found = state.get(name)
            if found is not None:
                return cls(
                    item["name"],
                    name,
                    found.get("reason") or "",
                    found.get("message") or "",
                    found.get("exitCode"),
                    parse_time(found.get("startedAt")),
                    parse_time(found.get("finishedAt")),
                )
        return cls(item["name"])


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of ours."""

    name: str
    uid: str
    role: str
    """Value of `Role`."""
    group: str
    """Worker group; empty for the aggregator."""
    index: int | None
    """Completion index of a worker."""
    owner: str
    """Name of its batch Job."""
    node: str
    host_ip: str
    phase: str
    reason: str
    """status.reason: Evicted, UnexpectedAdmissionError, NodeLost ..."""
    message: str
    created: datetime | None
    deleting: datetime | None
    """deletionTimestamp."""
    conditions: Mapping[str, ConditionView]
    main: ContainerView | None
    memory_limit: str
    """Of the main container; empty: none."""
    image: str = ""
    """Of the main container, as its template names it."""
    memory_peak: int = 0
    """Bytes that its process is known to have used; 0: unknown. Told by the aggregator, not by Kubernetes."""

    @property
    def ready(self) -> bool:
        """Whether the kubelet says Ready."""
        found = self.conditions.get("Ready")
        return found is not None and found.true

    @property
    def ready_since(self) -> datetime | None:
        """Since when the kubelet has said Ready; None: it does not."""
        return self.conditions["Ready"].since if self.ready else None

    @classmethod
    def from_object(cls, pod: Mapping[str, Any]) -> PodView:
        """Read a pod."""
        meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        index = annotations.get(Annotation.COMPLETION_INDEX, "")
        containers = [ContainerView.from_object(item) for item in status.get("containerStatuses") or ()]
        mains = [item for item in spec.get("containers") or () if item.get("name") == MAIN_CONTAINER]
        limits = (mains[0].get("resources") or {}).get("limits") or {} if mains else {}
        owners = [owner["name"] for owner in meta.get("ownerReferences") or () if owner.get("kind") == "Job"]
        return cls(
            name=meta["name"],
            uid=meta.get("uid") or "",
            role=labels.get(Label.ROLE, ""),
            group=labels.get(Label.GROUP, ""),
            index=int(index) if _INDEX.fullmatch(index) else None,
            owner=owners[0] if owners else "",
            node=spec.get("nodeName") or "",
            host_ip=status.get("hostIP") or "",
            phase=status.get("phase") or "Pending",
            reason=status.get("reason") or "",
            message=status.get("message") or "",
            created=parse_time(meta.get("creationTimestamp")),
            deleting=parse_time(meta.get("deletionTimestamp")),
            conditions=conditions_of(status),
            main=next((item for item in containers if item.name == MAIN_CONTAINER), None),
            memory_limit=str(limits.get("memory", "")),
            image=str(mains[0].get("image") or "") if mains else "",
        )


@dataclass(frozen=True, slots=True)
class JobView:
    """A batch/v1 Job of ours."""

    name: str
    uid: str
    role: str
    group: str
    suspend: bool
    parallelism: int
    completions: int
    active: int
    ready: int
    succeeded: int
    failed: int
    terminating: int
    completed_indexes: str
    failed_indexes: str
    conditions: Mapping[str, ConditionView]
    template_hash: str
    spec_digest: str
    deleting: bool
    created: datetime | None
    started: datetime | None

    @property
    def succeeding(self) -> bool:
        """Whether it has succeeded or is about to (pods on a dead node may keep Complete away for ever)."""
        return self._true("Complete") or self._true("SuccessCriteriaMet")

    @property
    def failing(self) -> ConditionView | None:
        """Why it has failed or is about to; None: it has not."""
        for name in ("Failed", "FailureTarget"):
            if self._true(name):
                return self.conditions[name]
        return None

    def _true(self, name: str) -> bool:
        return name in self.conditions and self.conditions[name].true

    @classmethod
    def from_object(cls, job: Mapping[str, Any]) -> JobView:
        """Read a batch/v1 Job."""
        meta, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
        labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
        return cls(
            name=meta["name"],
            uid=meta.get("uid") or "",
            role=labels.get(Label.ROLE, ""),
            group=labels.get(Label.GROUP, ""),
            suspend=bool(spec.get("suspend")),
            parallelism=int(spec.get("parallelism", 1)),
            completions=int(spec.get("completions") or 1),
            active=int(status.get("active") or 0),
            ready=int(status.get("ready") or 0),
            succeeded=int(status.get("succeeded") or 0),
            failed=int(status.get("failed") or 0),
            terminating=int(status.get("terminating") or 0),
            completed_indexes=status.get("completedIndexes") or "",
            failed_indexes=status.get("failedIndexes") or "",
            conditions=conditions_of(status),
            template_hash=annotations.get(Annotation.TEMPLATE_HASH, ""),
            spec_digest=annotations.get(Annotation.SPEC_DIGEST, ""),
            deleting=bool(meta.get("deletionTimestamp")),
            created=parse_time(meta.get("creationTimestamp")),
            started=parse_time(status.get("startTime")),
        )


@dataclass(frozen=True)
class Credentials:
    """Content of the Secret `<job>-credentials`: made once for a job, read back ever after."""

    key: str
    """K, hexadecimal."""
    ca: str
    certificate: str
    private_key: str
    """PEM each."""

    @classmethod
    def from_data(cls, data: Mapping[str, str]) -> Credentials | None:
        """Read the decoded data of the Secret; None unless all of it is there."""
        try:
            return cls(*(data[name] for name in _CREDENTIALS))
        except KeyError:
            return None

    def data(self) -> dict[str, str]:
        """Return the Secret's stringData."""
        values = (self.key, self.ca, self.certificate, self.private_key)
        return dict(zip(map(str, _CREDENTIALS), values, strict=True))


_CREDENTIALS = (
    CredentialsKey.KEY,
    CredentialsKey.CA,
    CredentialsKey.CERTIFICATE,
    CredentialsKey.PRIVATE_KEY,
)


@dataclass(frozen=True)
class NodeView:
    """A node, where nodes may be read."""

    name: str
    edge: bool
    internal_ip: str
    ready: ConditionView | None

    @classmethod
    def from_object(cls, node: Mapping[str, Any]) -> NodeView:
        """Read a node."""
        meta, status = node["metadata"], node.get("status") or {}
        addresses = {item["type"]: item["address"] for item in reversed(status.get("addresses") or ())}
        return cls(
            name=meta["name"],
            edge=Label.EDGE_NODE in (meta.get("labels") or {}),
            internal_ip=addresses.get("InternalIP", ""),
            ready=conditions_of(status).get("Ready"),
        )


@dataclass(frozen=True)
class Live:
    """The aggregator's `/v1/status` (shape of `.status` with more; engram.metrics.status), read just now."""

    status: Mapping[str, Any]
    read: datetime


@dataclass(frozen=True)
class Observed:
    """A job's children as they are. Only ours: what is somebody else's under our names is in `foreign`."""

    jobs: Mapping[str, JobView] = field(default_factory=dict)
    """By object name."""
    pods: tuple[PodView, ...] = ()
    objects: Mapping[str, Object] = field(default_factory=dict)
    """Service, ConfigMaps and PersistentVolumeClaims of ours by `Kind/name`; no Secrets."""
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the keys in each Secret of ours."""
    foreign: tuple[str, ...] = ()
    """`Kind/name` of objects that exist under our names and are not ours."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Name of an object -> why it cannot be made: of a batch Job that lacks pods the message of its newest
    FailedCreate Event, of an object that does not exist the API server's answer to its creation."""
    warnings: Mapping[str, str] = field(default_factory=dict)
    """Pod -> message of its newest Warning Event, unless that is over, for pods that wait (a volume that
    cannot be mounted leaves no other trace)."""
    nodes: tuple[NodeView, ...] | None = None
    """None: nodes may not be read (namespaced mode)."""
    live: Live | None = None
    peers: tuple[str, ...] = ()
    """Names of the jobs that `spec.report.compareWith` means, where it means any."""
    report: CompactReport | None = None
    """What the report's pod has printed; read once its Job has succeeded and until it is stored."""
    report_problem: str = ""
    """Why that could not be read."""
    namespace_terminating: bool = False
    complete: bool = True
    """False: objects and secrets were not read this time (only Jobs and pods are known); nothing may be made
    because it is missing from them."""


@dataclass(frozen=True)
class Patch:
    """A merge patch of one object."""

    kind: str
    name: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Removal:
    """Deletion of one object; its dependants go with it in the background."""

    kind: str
    name: str
    uid: str = ""
    """Precondition: only this very object."""


@dataclass(frozen=True)
class Note:
    """An Event of the job to write: reason is a condition's reason."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: events last; anything that fails is tried again from a new observation."""

    apply: tuple[Object, ...] = ()
    """By server-side apply under our field manager."""
    create: tuple[Object, ...] = ()
    """Jobs and the Secret of the credentials: created once, never overwritten. AlreadyExists is no error, it
    is seen next time."""
    patch: tuple[Patch, ...] = ()
    delete: tuple[Removal, ...] = ()
    status: Object | None = None
    """The whole new `.status`; None: unchanged."""
    notes: tuple[Note, ...] = ()
    wake_after: float | None = None
    """Seconds after which to look again although nothing changed; None: not before the resync."""
    poll: bool = False
    """Whether the aggregator's live status is worth reading (the run is under way)."""
