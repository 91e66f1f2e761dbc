"""Small builders of what the pure core takes: jobs, views of Jobs and pods, observations; one word a test."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from engram.spec.exit_codes import ExitCode
from engram.spec.names import API_VERSION, KIND, Condition, Label, Role, worker_name
from engram.spec.status import JobStatus
from engram_operator.model import (
    ConditionView,
    ContainerView,
    Credentials,
    JobView,
    Live,
    NodeView,
    Object,
    Observed,
    Plan,
    PodView,
)
from engram_operator.settings import Settings

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
CREDENTIALS = Credentials("ab" * 32, "CA\n", "CERT\n", "KEY\n")
OTHER_CREDENTIALS = Credentials("cd" * 32, "CA2\n", "CERT2\n", "KEY2\n")
SETTINGS = Settings(image="engram-runtime:test")
DURABLE: Mapping[str, Any] = {"checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": "store"}}}}


def ago(seconds: float, now: datetime = NOW) -> datetime:
    """The time so long before `now`."""
    return now - timedelta(seconds=seconds)


def job_object(name: str = "digits", *, generation: int = 1, **spec: Any) -> Object:
    """A FederatedIncrementalJob with two workers in the group edge."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": "lab", "uid": UID, "generation": generation},
        "spec": {"workers": [{"name": "edge", "replicas": 2}], **copy.deepcopy(spec)},
    }


def with_status(raw: Object, plan: Plan) -> Object:
    """The job after the plan's status was written; as it was when there is none."""
    return raw if plan.status is None else {**raw, "status": json.loads(json.dumps(plan.status))}


def job_view(
    name: str = "digits-aggregation",
    *,
    group: str = "",
    replicas: int = 1,
    conditions: Mapping[str, ConditionView] | None = None,
    **changes: Any,
) -> JobView:
    """A batch Job of ours that runs."""
    view = JobView(
        name=name,
        uid=f"uid-{name}",
        role=Role.WORKER if group else Role.AGGREGATOR,
        group=group,
        suspend=False,
        parallelism=replicas,
        completions=replicas,
        active=replicas,
        ready=0,
        succeeded=0,
        failed=0,
        terminating=0,
        completed_indexes="",
        failed_indexes="",
        conditions=conditions or {},
        template_hash="",
        spec_digest="",
        deleting=False,
        created=ago(600),
        started=ago(600),
    )
    return replace(view, **changes)


def workers_view(replicas: int = 2, group: str = "edge", **changes: Any) -> JobView:
    """The Job of a worker group."""
    return job_view(f"digits-{group}", group=group, replicas=replicas, **changes)


def true(reason: str = "", message: str = "", since: datetime | None = None) -> ConditionView:
    """A condition that holds."""
    return ConditionView("True", reason, message, since or ago(60))


def false(reason: str = "", message: str = "", since: datetime | None = None) -> ConditionView:
    """A condition that does not hold."""
    return ConditionView("False", reason, message, since or ago(60))


def container(state: str = "running", reason: str = "", message: str = "", **changes: Any) -> ContainerView:
    """The main container."""
    view = ContainerView("main", state, reason, message, started=ago(60))  # type: ignore[arg-type]
    return replace(view, **changes)


def pod(
    index: int | None = None,
    *,
    group: str = "edge",
    phase: str = "Running",
    main: ContainerView | None = None,
    conditions: Mapping[str, ConditionView] | None = None,
    **changes: Any,
) -> PodView:
    """A pod that runs and is ready: of the aggregator, or of worker `index`."""
    owner = "digits-aggregation" if index is None else f"digits-{group}"
    name = owner if index is None else f"{owner}-{index}"
    ready = phase == "Running"
    known = {"PodScheduled": true()}
    if ready:
        known |= {"Ready": true(), "ContainersReady": true()}
    view = PodView(
        name=f"{name}-abcde",
        uid=f"uid-{name}",
        role=Role.AGGREGATOR if index is None else Role.WORKER,
        group="" if index is None else group,
        index=index,
        owner=owner,
        node="cloud" if index is None else f"edge{index}",
        host_ip="10.0.0.1",
        phase=phase,
        reason="",
        message="",
        created=ago(60),
        deleting=None,
        conditions={**known, **(conditions or {})},
        main=main if main is not None else (container() if ready else None),
        memory_limit="",
        image="engram-runtime:test",
    )
    return replace(view, **changes)


def pending(index: int | None = None, **changes: Any) -> PodView:
    """A pod that no node has been found for yet, without a verdict."""
    found = pod(index, phase="Pending", **{"node": "", "created": ago(5), **changes})
    return replace(found, conditions=changes.get("conditions") or {})


def unschedulable(index: int | None = None, message: str = "", **changes: Any) -> PodView:
    """A pod that no node takes."""
    said = message or "0/3 nodes are available: 3 Insufficient cpu."
    return pending(index, conditions={"PodScheduled": false("Unschedulable", said, ago(25))}, **changes)


def waiting(index: int | None, reason: str, message: str = "", **changes: Any) -> PodView:
    """A pod on a node whose container waits."""
    state = container("waiting", reason, message, started=None)
    return pod(index, phase="Pending", main=state, **changes)


def ended(
    index: int | None = None, code: int = 0, message: str = "", reason: str = "", **changes: Any
) -> PodView:
    """A pod whose container ended with an exit code."""
    word = reason or ("Completed" if code == ExitCode.DONE else "Error")
    state = container("terminated", word, message, exit_code=code, finished=ago(3))
    return pod(index, phase="Succeeded" if code == ExitCode.DONE else "Failed", main=state, **changes)


def node(name: str, *, ready: bool = True, edge: bool = False, address: str = "192.0.2.1") -> NodeView:
    """A node."""
    return NodeView(name, edge, address, true() if ready else ConditionView("Unknown", since=ago(90)))


def observed(
    jobs: Iterable[JobView] = (), pods: Iterable[PodView] = (), base: Observed | None = None, **changes: Any
) -> Observed:
    """An observation with these Jobs and pods."""
    found = replace(base or Observed(), jobs={view.name: view for view in jobs}, pods=tuple(pods))
    return replace(found, **changes)


def live(
    *,
    round: int = 3,
    connected: int = 2,
    desired: int = 2,
    workers: Iterable[Mapping[str, Any]] = (),
    **changes: Any,
) -> Live:
    """What the aggregator says of a run in its third round."""
    seen = list(workers) or [
        {"name": worker_name("edge", index), "group": "edge", "state": "training", "round": round}
        for index in range(desired)
    ]
    status = {
        "phase": "Running",
        "message": "",
        "display": {"task": "1/5", "round": f"{round}/25", "workers": f"{connected}/{desired}"},
        "progress": {
            "task": 1,
            "tasks": 5,
            "round": round,
            "rounds": 25,
            "percent": 4 * round,
            "secondsLeft": 60,
            "estimatedCompletionTime": "2026-01-02T12:01:00Z",
        },
        "workers": {
            "desired": desired,
            "running": desired,
            "connected": connected,
            "disconnected": sum(item["state"] == "disconnected" for item in seen),
            "failed": 0,
        },
        "workerStatuses": seen,
        "metrics": {"accuracy": "0.9310", "forgetting": "0.0100"},
        "tasks": [],
        "transfer": {"bytesDown": 1, "bytesUp": 2},
        "faults": {"reconnects": 0, "rejected": 0, "roundsDegraded": 0, "resumes": 0},
    }
    return Live({**status, **changes}, NOW)


def condition(status: Mapping[str, Any] | None, kind: Condition) -> Mapping[str, Any]:
    """A condition of a status."""
    return next(item for item in (status or {})["conditions"] if item["type"] == kind)


def valid_status(status: Mapping[str, Any] | None) -> JobStatus:
    """The status as the CRD's type takes it; fails for one that the API server would refuse."""
    return JobStatus.model_validate(status)


def stored(children: Iterable[Object], **service: Any) -> dict[str, Object]:
    """Objects as the API server keeps them: what was applied, and more."""
    found = {}
    for item in children:
        kept = copy.deepcopy(item)
        kept["metadata"] |= {"uid": "x", "resourceVersion": "7", "generation": 1}
        if kept["kind"] == "Service":
            kept["spec"] |= {"clusterIP": "10.96.0.9", "sessionAffinity": "None"}
            if kept["spec"]["type"] == "NodePort":
                for port in kept["spec"]["ports"]:
                    port.setdefault("nodePort", 31234)
        found[f"{kept['kind']}/{kept['metadata']['name']}"] = kept
    return found


def label_of(item: Mapping[str, Any], label: Label) -> str:
    """A label of an object."""
    return str(item["metadata"]["labels"][label])
