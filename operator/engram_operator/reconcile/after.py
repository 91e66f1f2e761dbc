"""A job that has ended: its pods are cleaned up, its report is made, later it goes itself.

Nothing of the run is made again. Once there is a report, or none to be had, Jobs and pods alone are needed,
which the watches know: a finished job costs no request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from engram.spec.names import KIND, Condition, Reason, Role
from engram_operator.manifests import job_patch
from engram_operator.model import JobView, Object, Observed, Patch, Plan, PodView, Removal, parse_time
from engram_operator.reconcile.outcome import soonest
from engram_operator.reconcile.report import follow
from engram_operator.reconcile.upkeep import SOON
from engram_operator.settings import Settings
from engram_operator.status import holds, report_awaited, view
from engram_operator.status.census import indexes

ENDS_WITHIN = timedelta(seconds=30)
"""How long workers may take to end by themselves after a run that succeeded. They are told to and need a
second or two; a Job that is removed meanwhile would take their logs along."""
_STOPPED_BY_US = frozenset({Reason.DEADLINE_EXCEEDED, Reason.PENDING_DEADLINE_EXCEEDED})


def plan_after(raw: Object, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Return what is left to do for a job whose `completionTime` is set: its pods, its report, itself.

    cleanPodPolicy All removes every Job with its pods, Running those that have not ended and do not end by
    themselves, None nothing. A run that a deadline ended is stopped under any policy: with None its Jobs are
    suspended, not removed; and so are those that Kubernetes starts again after the run has ended, because a
    node that was out of touch has reported a worker's end as a failure: nobody answers them any more. The job
    itself outlives its time for as long as its report is being made, which has a deadline of its own.
    """
    status, policy = raw["status"], (raw.get("spec") or {}).get("runPolicy") or {}
    completed = parse_time(status["completionTime"]) or now
    ttl = policy.get("ttlSecondsAfterFinished")
    left = None if ttl is None else (completed + timedelta(seconds=ttl) - now).total_seconds()
    awaited = report_awaited(status)
    if left is not None and left <= 0 and not awaited:
        meta = raw["metadata"]
        return Plan(delete=(Removal(KIND, meta["name"], meta.get("uid", "")),))
    clean = policy.get("cleanPodPolicy", "Running")
    present = [
        job for job in observed.jobs.values() if not job.deleting and not (awaited and _needed(job, observed))
    ]
    unfinished = [job for job in present if clean == "Running" and _unfinished(job)]
    grace = (completed + ENDS_WITHIN - now).total_seconds() if holds(status, Condition.COMPLETE) else 0.0
    ending = [job for job in unfinished if grace > 0 and _ends(job, observed.pods)]
    gone = present if clean == "All" else [job for job in unfinished if job not in ending]
    plan = follow(raw, observed, settings, now) if awaited else Plan()
    settled = plan.status is not None and not report_awaited(plan.status)
    waits = (
        plan.wake_after,
        None if awaited else left,
        grace if ending else None,
        SOON if settled else None,  # the report was all that was waited for, and nobody else tells us
    )
    return replace(
        plan,
        patch=_stopped(raw, present, _begun_again(observed, completed)) if clean == "None" else (),
        delete=tuple(Removal("Job", job.name, job.uid) for job in gone),
        status=plan.status or _seen(raw),
        wake_after=soonest(waits),
    )


def _needed(job: JobView, observed: Observed) -> bool:
    """Whether the report needs a batch Job: its own, and before that the ended aggregator's, whose pod says
    which image it ran.
    """
    made = any(view.role == Role.REPORT for view in observed.jobs.values())
    return job.role == Role.REPORT or (job.role == Role.AGGREGATOR and not made and not _unfinished(job))


def _unfinished(job: JobView) -> bool:
    return not job.succeeding and job.failing is None


def _ends(job: JobView, pods: Iterable[PodView]) -> bool:
    """Return whether a Job of workers ends by itself: each index has ended, or its pod runs to its end."""
    ended = indexes(job.completed_indexes) | indexes(job.failed_indexes)
    ending = {pod.index for pod in pods if pod.owner == job.name and _is_ending(pod)}
    return bool(job.group) and set(range(job.completions)) <= ended | ending


def _is_ending(pod: PodView) -> bool:
    failed = pod.main is not None and bool(pod.main.exit_code)
    return pod.phase in ("Running", "Succeeded") and pod.deleting is None and not failed


def _begun_again(observed: Observed, completed: datetime) -> frozenset[str]:
    """Return the Jobs of workers of which a pod was made after the end of the run."""
    pods = (pod for pod in observed.pods if pod.index is not None and pod.phase in ("Pending", "Running"))
    return frozenset(pod.owner for pod in pods if pod.created is not None and pod.created > completed)


def _stopped(raw: Object, jobs: list[JobView], again: frozenset[str]) -> tuple[Patch, ...]:
    failed = view(raw["status"], Condition.FAILED)
    if failed is None or not failed.true or failed.reason not in _STOPPED_BY_US:
        jobs = [job for job in jobs if job.name in again]
    patches = [job_patch(job, suspend=True, replicas=job.completions) for job in jobs]
    return tuple(patch for patch in patches if patch is not None)


def _seen(raw: Object) -> Object | None:
    """Return the status with the generation that an edit after the end has made; None: there was none."""
    generation = raw["metadata"].get("generation", 0)
    status: Object = raw["status"]
    if status.get("observedGeneration") == generation:
        return None
    conditions = [{**item, "observedGeneration": generation} for item in status.get("conditions") or ()]
    return {**status, "observedGeneration": generation, "conditions": conditions}
