"""`status` of a FederatedIncrementalJob: what the operator writes and people read. Small by construction.

Every list is bounded and every text has a longest length, so that a status stays under 10 KB; history belongs
to Prometheus and the report. Numbers that are not whole are decimal strings, as Kubernetes' conventions ask.
Nothing has a default: an absent field is one that is not known.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from engram.spec.base import Spec
from engram.spec.names import Phase, WorkerCondition

MOST_WORKER_STATUSES = 20
MOST_TASK_STATUSES = 100
MOST_CONDITIONS = 16
MOST_NUMBER = 2**53 - 1
"""Every reader of JSON takes whole numbers up to here as they are."""

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[-+][0-9]{2}:[0-9]{2})"
)


def _check_time(text: str) -> str:
    """Refuse what the API server does not take as a date-time (RFC 3339)."""
    if not _TIME.fullmatch(text):
        raise ValueError("no time such as 2026-01-02T12:00:00Z")
    datetime.fromisoformat(text)
    return text


Text = Annotated[str, Field(max_length=253)]
Message = Annotated[str, Field(max_length=1024)]
Time = Annotated[
    str, Field(max_length=32, json_schema_extra={"format": "date-time"}), AfterValidator(_check_time)
]
Number = Annotated[int, Field(ge=0, le=MOST_NUMBER)]
Decimal = Annotated[str, Field(max_length=32, pattern=r"^-?[0-9]+(\.[0-9]+)?$")]
Restarts = Annotated[int, Field(ge=0, le=2_147_483_647)]


class StatusPart(Spec):
    """Base of the parts: absent rather than null."""

    def dump(self) -> dict[str, Any]:
        """Return plain data with the file's keys and without what is not known."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ConditionStatus(StatusPart):
    """A metav1.Condition, merged by type."""

    type: str = Field(
        max_length=316,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
        r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
        description="Type of the condition, such as Degraded.",
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="Why, in one word; docs/reference/reasons.md explains each.",
    )
    message: str = Field(max_length=32_768, description="Why, in a sentence with the remedy.")
    last_transition_time: Time = Field(description="When `status` last changed.")
    observed_generation: Number | None = Field(None, description="metadata.generation that it speaks of.")


class Display(StatusPart):
    """Text for printer columns only: a column prints one value."""

    task: Text | None = Field(None, description="Such as 2/5.")
    round: Text | None = Field(None, description="Such as 3/25, over the whole run.")
    workers: Text | None = Field(None, description="Connected of desired workers, such as 4/5.")
    accuracy: Text | None = Field(None, description="Such as 93.1%.")
    forgetting: Text | None = Field(None, description="Forget rate, such as 4.2%.")


class ProgressStatus(StatusPart):
    """Where the run is; tasks and rounds count from 1, rounds over the whole run."""

    task: Number | None = Field(None, description="Task that is running.")
    tasks: Number | None = Field(None, description="Tasks of the job.")
    round: Number | None = Field(None, description="Round that is running.")
    rounds: Number | None = Field(None, description="Rounds of the run.")
    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="Share of rounds closed.")
    estimated_completion_time: Time | None = Field(None, description="When the run will end at this pace.")


class AggregatorStatus(StatusPart):
    """The aggregation pod."""

    endpoint: Text | None = Field(None, description="What workers dial.")
    node: Text | None = Field(None, description="Node that it runs on.")
    state: Text | None = Field(None, description="State of its pod.")
    restarts: Restarts | None = Field(None, description="Pods that were replaced.")
    memory_bytes: Number | None = Field(None, description="Most memory that it has reported.")
    message: Message | None = Field(None, description="What is wrong with it, and the remedy.")


class WorkersStatus(StatusPart):
    """Workers counted by state."""

    desired: Number | None = Field(None, description="Workers of all groups.")
    running: Number | None = Field(None, description="Pods that run.")
    connected: Number | None = Field(None, description="Workers that the aggregator hears from.")
    disconnected: Number | None = Field(None, description="Silent for three heartbeats; may be training.")
    failed: Number | None = Field(None, description="Gone for good.")


class WorkerStatus(StatusPart):
    """One worker; those that are not fine come first."""

    name: str = Field(min_length=1, max_length=63, description="Such as trainworker-edge-0.")
    group: Text | None = Field(None, description="Its group.")
    state: WorkerCondition | None = Field(None, description="As the aggregator sees it.")
    reason: Text | None = Field(None, description="Why it is not fine, in one word.")
    message: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="What is wrong with it, and the remedy."
    )
    node: Text | None = Field(None, description="Node that it runs on.")
    device: Text | None = Field(None, description="Such as cpu or cuda:0.")
    round: Number | None = Field(None, description="Newest round that it took part in.")
    last_seen_time: Time | None = Field(None, description="Last sign of life.")
    memory_bytes: Number | None = Field(None, description="Most memory that it has reported.")
    restarts: Restarts | None = Field(None, description="Pods that were replaced.")


class MetricsStatus(StatusPart):
    """Measures of the run so far, as decimal strings; docs/metrics.md has the formulas."""

    accuracy: Decimal | None = Field(None, description="Over the test samples of all classes seen.")
    average_incremental_accuracy: Decimal | None = Field(None, description="Mean of it over tasks.")
    forget_rate: Decimal | None = Field(None, description="Mean drop of old classes from their best.")
    backward_transfer: Decimal | None = Field(None, description="Mean change of old tasks since learned.")
    forward_transfer: Decimal | None = Field(None, description="Head start of tasks before they are learned.")


class TaskStatus(StatusPart):
    """One finished task."""

    index: Annotated[int, Field(ge=1, le=1000)] = Field(description="Number of the task, from 1.")
    classes: list[Annotated[int, Field(ge=0, le=65_535)]] = Field(
        default_factory=list, max_length=100, description="Label ids, the first 100."
    )
    accuracy: Decimal | None = Field(None, description="On its classes, at its end.")
    accuracy_now: Decimal | None = Field(None, description="On its classes, after the newest task.")
    forget_rate: Decimal | None = Field(None, description="Over all old classes, at its end.")
    seconds: Number | None = Field(None, description="How long it took.")
    bytes: Number | None = Field(None, description="Bytes on the wire in both directions.")


class ReportStatus(StatusPart):
    """Where the report is."""

    location: Message | None = Field(None, description="Path of the full report on report.volume.")
    config_map: Text | None = Field(None, description="ConfigMap with the compact report.")
    digest: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="SHA-256 of the compact report's files."
    )


class JobStatus(StatusPart):
    """What the operator has seen of a job; written by it alone."""

    phase: Phase | None = Field(None, description="Where the job stands; derived from the conditions.")
    reason: Text | None = Field(None, description="Reason of the condition that decides the phase.")
    message: Message | None = Field(None, description="Message of the condition that decides the phase.")
    observed_generation: Number | None = Field(None, description="metadata.generation that was last handled.")
    start_time: Time | None = Field(
        None, description="When the run started; from then on typed fields are fixed."
    )
    completion_time: Time | None = Field(None, description="When the run ended.")
    active_seconds: Number | None = Field(None, description="Active time, without suspensions.")
    resumes: Number | None = Field(None, description="Times that the run continued from a checkpoint.")
    conditions: list[ConditionStatus] = Field(
        default_factory=list,
        max_length=MOST_CONDITIONS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="metav1.Conditions by type; Complete and Failed are terminal and exclusive.",
    )
    display: Display | None = Field(None, description="Text for `kubectl get`.")
    progress: ProgressStatus | None = Field(None, description="Where the run is.")
    aggregator: AggregatorStatus | None = Field(None, description="The aggregation pod.")
    workers: WorkersStatus | None = Field(None, description="Workers counted by state.")
    worker_statuses: list[WorkerStatus] = Field(
        default_factory=list,
        max_length=MOST_WORKER_STATUSES,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="Single workers, those that are not fine first.",
    )
    metrics: MetricsStatus | None = Field(None, description="Measures of the run so far.")
    tasks: list[TaskStatus] = Field(
        default_factory=list,
        max_length=MOST_TASK_STATUSES,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["index"]},
        description="Finished tasks, the newest at most 100.",
    )
    report: ReportStatus | None = Field(None, description="Where the report is.")
