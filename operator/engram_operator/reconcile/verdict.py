"""Has the run ended, and how. The aggregator decides: its Job's verdict and its final summary; then
deadlines.

`SuccessCriteriaMet` and `FailureTarget` count like `Complete` and `Failed`, which never come while a pod is
Terminating on a dead node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import Reason
from engram.spec.summary import FinalSummary
from engram_operator.model import ConditionView, JobView, PodView
from engram_operator.status.census import Census, Member
from engram_operator.status.ends import explain_end, without_promise
from engram_operator.status.finding import AGGREGATOR, Finding
from engram_operator.status.situation import quorum_of

SUMMARY_WITHIN = timedelta(seconds=10)
"""How long the pod's last word may come later than its Job's verdict: they are watched separately."""

_FAILURES = frozenset(
    {
        Reason.CONFIGURATION_ERROR,
        Reason.NUMERICAL_ERROR,
        Reason.CHECKPOINT_FAILED,
        Reason.PORT_TAKEN,
        Reason.DATA_ERROR,
        Reason.OUT_OF_MEMORY,
        Reason.QUORUM_NOT_REACHED,
    }
)
"""Causes that say more than that the backoff limit was exceeded."""


@dataclass(frozen=True)
class End:
    """The run is over."""

    reason: Reason
    """FINISHED: it succeeded; another: why it failed."""
    message: str
    summary: FinalSummary | None = None

    @property
    def succeeded(self) -> bool:
        """Whether all tasks are done."""
        return self.reason is Reason.FINISHED


@dataclass(frozen=True)
class Later:
    """There is a verdict, or may soon be one: look again after so many seconds."""

    seconds: float


def verdict(job: JobView | None, pods: Iterable[PodView], now: datetime) -> End | Later | None:
    """Return how the aggregation Job says the run has ended; None: it goes on.

    `pods` are those of the aggregator, the newest last.
    """
    pods = tuple(pods)
    if job is None or not (job.succeeding or job.failing is not None):
        return None
    ended = [pod for pod in pods if pod.main is not None and pod.main.state == "terminated"]
    last = _last(ended, succeeded=job.succeeding)
    summary = FinalSummary.decode(last.main.message) if last is not None and last.main is not None else None
    if last is None:
        wait = _since_verdict(job, pods, now)
        if wait > 0:
            return Later(wait)
    if job.succeeding:
        return End(Reason.FINISHED, _finished(summary), summary)
    return _failure(job.failing or ConditionView("True"), last, summary)


def active_deadline(job: FederatedIncrementalJob, active: float) -> End | Later:
    """Return the end of a run that has been active for too long, or when that will be."""
    limit = job.spec.run_policy.active_deadline_seconds
    if active < limit:
        return Later(limit - active)
    return End(
        Reason.DEADLINE_EXCEEDED,
        f"active for {int(active)} s, longer than spec.runPolicy.activeDeadlineSeconds ({limit}); raise it "
        "in a new job",
    )


def pending_deadline(
    job: FederatedIncrementalJob, census: Census, now: datetime
) -> tuple[End | Later | None, tuple[Finding, ...]]:
    """Return whether pods have been pending for too long: the end of the run, or what it goes on without.

    The aggregator's pod ends it; pods of workers only when no quorum can come together without them.
    """
    limit = timedelta(seconds=job.spec.run_policy.pending_deadline_seconds)
    overdue = [member for member in census.workers if _waited(member, now) >= limit]
    field = f"spec.runPolicy.pendingDeadlineSeconds ({int(limit.total_seconds())} s)"
    if _waited(census.aggregator, now) >= limit:
        why = _why(census, census.aggregator)
        return End(
            Reason.PENDING_DEADLINE_EXCEEDED, f"aggregator: pending for longer than {field}: {why}"
        ), ()
    if overdue:
        left = len(census.workers) - len(overdue) - census.count("lost")
        needed = quorum_of(job, len(census.workers))
        why = _why(census, overdue[0])
        if left < needed:
            message = (
                f"{len(overdue)} workers pending for longer than {field}, and a round needs {needed}; "
                f"{overdue[0].name}: {why}"
            )
            return End(Reason.PENDING_DEADLINE_EXCEEDED, message), ()
        return _next(census, limit, now), tuple(
            Finding(
                Reason.PENDING_DEADLINE_EXCEEDED,
                f"pending for longer than {field}; the run goes on without it: {_why(census, member)}",
                member.name,
            )
            for member in overdue
            if member.finding is None
        )
    return _next(census, limit, now), ()


def _next(census: Census, limit: timedelta, now: datetime) -> Later | None:
    """Return when the next pod will have been pending for too long."""
    waits = [_waited(member, now) for member in (census.aggregator, *census.workers)]
    left = [(limit - wait).total_seconds() for wait in waits if timedelta() <= wait < limit]
    return Later(min(left)) if left else None


def _waited(member: Member, now: datetime) -> timedelta:
    """Return for how long a member has been pending; a negative time: it is not."""
    return (
        timedelta(seconds=-1)
        if member.pending_since is None
        else max(timedelta(), now - member.pending_since)
    )


def _why(census: Census, member: Member) -> str:
    if member.finding is not None:
        return member.finding.message
    subject = f"group {member.group}" if member.group else AGGREGATOR
    refused = next((found.message for found in census.others if found.subject == subject), "")
    pod = member.pod.name if member.pod else ""
    return refused or f"no cause is known; kubectl describe pod {pod} may tell"


def _finished(summary: FinalSummary | None) -> str:
    if summary is None:
        return "All tasks are done; the aggregator left no summary."
    accuracy = summary.display.get("accuracy")
    forgetting = summary.display.get("forgetting")
    said = [f"accuracy {accuracy}"] if accuracy else []
    said += [f"forget rate {forgetting}"] if forgetting else []
    return f"All tasks are done: {', '.join(said)}." if said else "All tasks are done."


def _failure(failing: ConditionView, last: PodView | None, summary: FinalSummary | None) -> End:
    """Return why the aggregation Job failed, from its last pod if there is one, else from its condition."""
    found = explain_end(last, AGGREGATOR) if last is not None else None
    if found is not None and found.reason in _FAILURES:
        return End(found.reason, without_promise(found.message), summary)
    words = _last_try(found.message) if found is not None else failing.message
    if failing.reason == "BackoffLimitExceeded":
        return End(
            Reason.BACKOFF_LIMIT_EXCEEDED,
            f"the aggregator failed more often than spec.runPolicy.backoffLimit allows; the last time: "
            f"{words}",
            summary,
        )
    return End(Reason.RUN_FAILED, words or "the aggregator gave up", summary)


def _last_try(message: str) -> str:
    return message.split("; Kubernetes ")[0]


def _last(ended: list[PodView], *, succeeded: bool) -> PodView | None:
    """Return the pod whose last word counts: the newest that ended as its Job did."""
    fitting = [pod for pod in ended if pod.main is not None and (pod.main.exit_code == 0) == succeeded]
    return fitting[-1] if fitting else None


def _since_verdict(job: JobView, pods: Sequence[PodView], now: datetime) -> float:
    """Return for how many seconds more a pod's last word is waited for.

    A verdict of the far future was given by a clock that differs from ours, so nobody knows how long ago:
    then a pod that is not known to have ended, or to be going, is waited for, and no other.
    """
    kinds = ("SuccessCriteriaMet", "Complete", "FailureTarget", "Failed")
    times = [job.conditions[kind].since for kind in kinds if kind in job.conditions]
    known = [time for time in times if time is not None]
    if not known:
        return 0.0
    left = min(known) + SUMMARY_WITHIN - now
    if left <= 2 * SUMMARY_WITHIN:
        return min(left, SUMMARY_WITHIN).total_seconds()
    open_end = any(
        pod.deleting is None and (pod.main is None or pod.main.state != "terminated") for pod in pods
    )
    return SUMMARY_WITHIN.total_seconds() if open_end else 0.0
