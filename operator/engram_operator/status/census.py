"""Who of a job is there: the aggregator and every worker, each with its pod and what is not fine with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from engram.spec.names import Reason, Role, worker_name
from engram_operator.model import JobView, Observed, PodView
from engram_operator.status.ends import without_promise
from engram_operator.status.explain import explain_pod
from engram_operator.status.finding import AGGREGATOR, Finding, by_severity
from engram_operator.status.refusals import explain_refusal

MemberState = Literal["absent", "pending", "running", "stopped", "done", "lost"]
"""stopped: its pod failed and another may come; done: its index is complete; lost: none comes any more."""

_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Member:
    """The aggregator or one worker."""

    name: str
    group: str = ""
    state: MemberState = "absent"
    pod: PodView | None = None
    finding: Finding | None = None
    restarts: int = 0
    pending_since: datetime | None = None
    """Since when it has been waiting to run; None: it is not."""


@dataclass(frozen=True)
class Census:
    """Everybody of a job at one moment."""

    aggregator: Member
    workers: tuple[Member, ...]
    others: tuple[Finding, ...] = ()
    """What concerns no single worker: refused pods, Jobs that failed."""

    def findings(self) -> tuple[Finding, ...]:
        """Return what is not fine, worst first."""
        members = (self.aggregator, *self.workers)
        return by_severity([*self.others, *(member.finding for member in members if member.finding)])

    def count(self, *states: MemberState) -> int:
        """Return how many workers are in one of `states`."""
        return sum(member.state in states for member in self.workers)


def take_census(
    groups: Mapping[str, int], job_names: Mapping[str, str], observed: Observed, now: datetime
) -> Census:
    """Return who is there.

    Args:
        groups: worker group -> number of workers wanted.
        job_names: worker group, and "" for the aggregator, -> name of its batch Job.
        observed: the job's children.
        now: the time, for what has lasted too long.
    """
    by_owner: dict[str, list[PodView]] = defaultdict(list)
    for pod in observed.pods:
        by_owner[pod.owner].append(pod)
    others: list[Finding] = []
    aggregator, *_ = _members("", 1, job_names[""], by_owner, observed, now, others)
    workers = [
        member
        for group, count in groups.items()
        for member in _members(group, count, job_names[group], by_owner, observed, now, others)
    ]
    return Census(aggregator, tuple(workers), tuple(others))


def indexes(text: str) -> frozenset[int]:
    """Return the numbers of a Job's `completedIndexes` or `failedIndexes`, such as `0,2-4`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _members(
    group: str,
    count: int,
    job_name: str,
    by_owner: Mapping[str, Sequence[PodView]],
    observed: Observed,
    now: datetime,
    others: list[Finding],
) -> Iterator[Member]:
    """Yield the workers of a group in their order, or the aggregator (group "")."""
    job = observed.jobs.get(job_name)
    refusal = observed.refusals.get(job_name)
    if refusal is not None:
        others.append(explain_refusal(refusal, f"group {group}" if group else AGGREGATOR, started=True))
    by_index: dict[int, list[PodView]] = defaultdict(list)
    for pod in by_owner.get(job_name, ()):
        if pod.role in (Role.AGGREGATOR, Role.WORKER):
            by_index[pod.index or 0].append(pod)
    done = indexes(job.completed_indexes) if job and group else frozenset()
    lost = indexes(job.failed_indexes) if job and group else frozenset()
    if job is not None and group and job.failing is not None:
        # A Job that failed as a whole (exit code 42) replaces nobody.
        lost |= frozenset(range(count)) - done
    for index in range(count):
        pods = sorted(by_index[index], key=lambda pod: pod.created or _BEGINNING)
        name = worker_name(group, index) if group else AGGREGATOR
        yield _member(name, group, pods, job, index in done, index in lost, observed, now)


def _member(
    name: str,
    group: str,
    pods: Sequence[PodView],
    job: JobView | None,
    done: bool,
    lost: bool,
    observed: Observed,
    now: datetime,
) -> Member:
    pod = pods[-1] if pods else None
    earlier = max(len(pods) - 1, 0)
    restarts = max(earlier, job.failed if job and not group else 0)
    if done:
        return Member(name, group, "done", pod, None, restarts)
    if lost:
        return Member(name, group, "lost", pod, _lost_worker(name, pods, job), restarts)
    if pod is None:
        return Member(name, group, "absent", None, None, restarts, _absent_since(job, observed))
    finding = explain_pod(pod, name, now, observed.nodes, observed.warnings.get(pod.name, ""))
    state = _state(pod)
    if finding is None and state == "pending" and earlier:
        # What ended the one before is not mended by trying again.
        finding = explain_pod(pods[-2], name, now, observed.nodes)
    if finding is not None and earlier:
        first = explain_pod(pods[0], name, now, observed.nodes)
        if first is not None and first.reason is finding.reason:
            finding = replace(finding, since=first.since)
    since = pod.created if state == "pending" and pod.deleting is None else None
    return Member(name, group, state, pod, finding, restarts, since)


def _state(pod: PodView) -> MemberState:
    if pod.phase == "Succeeded" or (pod.main is not None and pod.main.exit_code == 0):
        return "done"  # the kubelet says Running for seconds more
    if pod.phase == "Failed":
        return "stopped"
    if pod.phase == "Pending":
        return "pending"
    return "running"


def _absent_since(job: JobView | None, observed: Observed) -> datetime | None:
    """Return since when a pod that is not there has been wanted.

    Only where the API server refuses it: after a failure Kubernetes itself waits up to 10 minutes.
    """
    if job is None or job.suspend or job.name not in observed.refusals:
        return None
    return job.started or job.created


def _lost_worker(name: str, pods: Sequence[PodView], job: JobView | None) -> Finding:
    """Return why nobody replaces a worker any more: its last failure, and that it was the last."""
    failures = [
        found
        for pod in reversed(pods)
        if pod.phase == "Failed" and (found := explain_pod(pod, name, _BEGINNING)) is not None
    ]
    if failures:
        last = failures[0]
        message = without_promise(last.message)
        if "is not replaced" not in message:
            message += "; it is not replaced"
        return Finding(last.reason, message, name, last.since, final=True)
    failing = job.failing if job else None
    words = f": {failing.message}" if failing and failing.message else ""
    return Finding(
        Reason.WORKER_FAILED,
        f"failed more often than runPolicy.backoffLimit allows and is not replaced{words}",
        name,
        failing.since if failing else None,
        final=True,
    )


def running(members: Iterable[Member]) -> int:
    """Return how many members have a pod that runs."""
    return sum(member.state == "running" for member in members)
