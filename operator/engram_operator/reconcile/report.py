"""The report of a run that has ended: its Job, what becomes of it, and what ReportReady says meanwhile.

Every way it can fail ends within `spec.report.deadlineSeconds`, so that nothing is looked at for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from engram.spec.compact import CompactReport
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import Condition, Reason, Role
from engram_operator.manifests.names import aggregation_name, report_name
from engram_operator.manifests.record import record_source
from engram_operator.manifests.report import report_config_map, report_job
from engram_operator.model import (
    ConditionView,
    JobView,
    Note,
    Object,
    Observed,
    Plan,
    PodView,
    parse_time,
)
from engram_operator.reconcile.children import differs
from engram_operator.reconcile.effective import effective
from engram_operator.reconcile.outcome import soonest
from engram_operator.reconcile.record import image_of
from engram_operator.settings import Settings
from engram_operator.status import Statement
from engram_operator.status.conditions import merge
from engram_operator.status.ends import last_word
from engram_operator.status.explain import explain_pod
from engram_operator.status.reporting import FOREIGN, SUBJECT, no_report, plain, pods_of, trouble_of

LOOK_AGAIN = 10.0
"""Seconds after which an obstacle that no watch shows is looked at again."""
LATE_SECONDS = 10.0
"""How much later than its Job's verdict the pod may be seen: they are watched separately."""

_MAKE_IT = "; `engram report` makes it of the record on the checkpoint's volume"


def follow(raw: Object, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Return what brings the report of a run that has ended nearer to its place."""
    held = effective(raw, observed)
    if held is None or not observed.complete:
        return Plan(wake_after=LOOK_AGAIN)
    name, job = report_name(held.job.name), held.job
    made = observed.jobs.get(name)
    if made is None:
        return _first(raw, job, observed, settings, now)
    if made.succeeding:
        return _store(raw, job, made, observed, now)
    if made.failing is not None:
        return _failed(raw, _why(name, made.failing, observed, now), now)
    return _said(raw, now, trouble_of(name, observed, now))


def _first(
    raw: Object, job: FederatedIncrementalJob, observed: Observed, settings: Settings, now: datetime
) -> Plan:
    """Make the Job of a record on the checkpoint's volume, when nobody else mounts it any more."""
    if record_source(job) != "checkpoint":
        return _failed(raw, "the report's Job was deleted before it was done", now)
    blocked = _blocked(job, observed)
    obstacle = blocked or observed.refusals.get(report_name(job.name), "")
    completed = parse_time(raw["status"]["completionTime"]) or now
    if obstacle and now - completed >= timedelta(seconds=job.spec.report.deadline_seconds):
        return _failed(raw, f"{obstacle}{_MAKE_IT}", now)
    plan = _said(raw, now, obstacle, LOOK_AGAIN if obstacle else None)
    if blocked:
        return plan
    node = str((raw["status"].get("aggregator") or {}).get("node") or "")
    made = report_job(job, settings, node=node, image=image_of(observed), peers=observed.peers)
    return replace(plan, create=(made,))


def _blocked(job: FederatedIncrementalJob, observed: Observed) -> str:
    """Return why the Job may not be made now; empty: it may."""
    name = report_name(job.name)
    if observed.namespace_terminating:
        return "the namespace is being deleted"
    if f"Job/{name}" in observed.foreign:
        return FOREIGN.format(name)
    aggregation = observed.jobs.get(aggregation_name(job.name))
    lives = any(pod.role == Role.AGGREGATOR and _lives(pod) for pod in observed.pods)
    if lives or (aggregation is not None and aggregation.active):
        return "the aggregator's pod has not gone yet, and both would mount the checkpoint's volume"
    return ""


def _store(
    raw: Object, job: FederatedIncrementalJob, made: JobView, observed: Observed, now: datetime
) -> Plan:
    """Put what the pod has printed into the ConfigMap, then say where it is."""
    name, report = report_name(job.name), observed.report
    if f"ConfigMap/{name}" in observed.foreign:
        return _failed(raw, f"ConfigMap {name} of this namespace is not this job's and is left alone", now)
    waited = (
        now - min((item.since or now for item in made.conditions.values()), default=now)
    ).total_seconds()
    late = waited >= job.spec.report.deadline_seconds
    if report is None:
        if late:
            return _failed(raw, observed.report_problem, now)
        return _said(raw, now, observed.report_problem if waited >= LATE_SECONDS else "", LOOK_AGAIN)
    wanted = report_config_map(job, report.files)
    kept = observed.objects.get(f"ConfigMap/{name}") or {}
    if differs(wanted["data"], kept.get("data")):
        refused = observed.refusals.get(name, "")
        if late and (refused or kept):
            return _failed(raw, refused or f"somebody else writes ConfigMap {name}", now)
        return Plan(apply=(wanted,), wake_after=LOOK_AGAIN if refused else 0.1)
    return _stored(raw, name, report, now)


def _stored(raw: Object, name: str, report: CompactReport, now: datetime) -> Plan:
    full = f" and in spec.report.volume at {report.location}" if report.location else ""
    where = f"in ConfigMap {name}{full}"
    message = ". ".join((f"The report is {where}", *(note.rstrip(".") for note in report.notes))) + "."
    found = {"location": report.location, "configMap": name, "digest": report.digest}
    statement = Statement(True, Reason.REPORT_STORED, message)
    return _said_anew(raw, statement, now, {key: value for key, value in found.items() if value})


def _why(name: str, failing: ConditionView, observed: Observed, now: datetime) -> str:
    """Return why the report's Job has failed."""
    pods = pods_of(name, observed)
    ended = [pod.main for pod in pods if pod.main is not None and pod.main.state == "terminated"]
    words = last_word(ended[-1].message, ended[-1].exit_code or 1).sentence if ended else ""
    if failing.reason == "DeadlineExceeded":
        late = "it took longer than spec.report.deadlineSeconds"
        cause = trouble_of(name, observed, now) or words
        return f"{late}: {cause}" if cause else late
    if words:
        return words
    if pods:
        found = explain_pod(pods[-1], SUBJECT, now, observed.nodes)
        if found is not None:
            return plain(found.message)
    return failing.message or "its pod failed"


def _lives(pod: PodView) -> bool:
    ended = pod.main is not None and pod.main.state == "terminated"
    return pod.phase not in ("Succeeded", "Failed") and not ended


# What is said of it.


def _failed(raw: Object, why: str, now: datetime) -> Plan:
    return _said_anew(raw, no_report(why), now)


def _said(raw: Object, now: datetime, trouble: str = "", wait: float | None = None) -> Plan:
    """Return a plan that says that the report is being made, or what holds it up."""
    plan = _said_anew(raw, Statement(False, Reason.REPORT_PENDING, trouble), now)
    return replace(plan, wake_after=soonest((wait,)))


def _said_anew(
    raw: Object, statement: Statement, now: datetime, report: Mapping[str, str] | None = None
) -> Plan:
    old = raw["status"]
    generation = int(raw["metadata"].get("generation") or 0)
    conditions = merge(old.get("conditions") or (), {Condition.REPORT_READY: statement}, now, generation)
    status = {**old, "conditions": conditions, **({"report": dict(report)} if report else {})}
    if _essence(status) == _essence(old):
        return Plan()
    return Plan(status=status, notes=notes(statement))


def notes(statement: Statement) -> tuple[Note, ...]:
    """Return the Event of what has become of the report; none while it is being made."""
    if statement.reason == Reason.REPORT_PENDING:
        return ()
    return (Note("Normal" if statement.true else "Warning", statement.reason, statement.text),)


def _essence(status: Mapping[str, object]) -> object:
    """Return what of a status is worth a write: not under which generation it was said."""
    conditions = status.get("conditions")
    items = conditions if isinstance(conditions, list) else []
    said = [(item["type"], item["status"], item["reason"], item["message"]) for item in items]
    return said, status.get("report")
