"""The report of a run: when its Job is made, what becomes of it, and what ReportReady says meanwhile.

Complete and Failed do not wait for it, and it changes neither: a result stands without a report. Every way it
can fail ends within `spec.report.deadlineSeconds`, so that nothing is looked at for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from engram.spec.compact import CompactReport
from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import Condition, Phase, Reason, Role
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
from engram_operator.reconcile.run import Run
from engram_operator.settings import Settings
from engram_operator.status import Statement, Statements, phase_of, view
from engram_operator.status.conditions import merge
from engram_operator.status.ends import last_words, without_promise
from engram_operator.status.explain import explain_pod
from engram_operator.status.figures import Figures
from engram_operator.status.finding import ANEW

LOOK_AGAIN = 10.0
"""Seconds after which an obstacle that no watch shows is looked at again."""
SUBJECT = "report"

_GONE = (
    "the run's record went with the aggregator's pod before a report was made of it; give "
    "spec.aggregator.checkpoint a volume or size in a new job, or raise spec.report.graceSeconds"
)
_MAKE_IT = "; `engram report` makes it of the record on the checkpoint's volume"


# While the aggregator still serves its record.


def served(run: Run) -> Phase | None:
    """Return how a run has ended whose aggregator waits for its record to be fetched; None: it does not.

    Between the aggregator's last answer and the verdict on its Job it stays as it was said.
    """
    live = run.observed.live
    if live is not None:
        said = live.status.get("phase") if live.status.get("recordServed") is True else None
        return next((phase for phase in (Phase.SUCCEEDED, Phase.FAILED) if phase == said), None)
    if phase_of(run.status) is not Phase.REPORTING:
        return None
    before = view(run.status, Condition.PROGRESSING)
    return Phase.SUCCEEDED if before and before.reason == Reason.FINISHED else Phase.FAILED


def fetching(run: Run) -> tuple[tuple[Object, ...], Statements]:
    """Return what to create, and the conditions, while the aggregator waits for its record to be fetched.

    Both are empty while the run goes on, and where the record is read later from the checkpoint.
    """
    ended, job = served(run), run.held.job
    if ended is None or record_source(job, run.settings) != "aggregator":
        return (), {}
    name = report_name(run.name)
    blocked = run.observed.namespace_terminating or f"Job/{name}" in run.observed.foreign
    create = () if blocked or name in run.observed.jobs else (report_job(job, run.settings),)
    reason, done = (
        (Reason.FINISHED, "All tasks are done.")
        if ended is Phase.SUCCEEDED
        else (Reason.RUN_FAILED, "The run has failed.")
    )
    waits = f"{done} The report's pod fetches the record from the aggregator."
    trouble = _trouble(name, run.observed, run.now)
    return create, {
        Condition.PROGRESSING: Statement(False, reason, done),
        Condition.REPORT_READY: Statement(False, Reason.REPORT_PENDING, trouble or waits),
    }


# At the end of the run.


def at_end(run: Run, figures: Figures) -> Statements:
    """Return what ReportReady says when the run ends; nothing of a run that has nothing to report."""
    source = record_source(run.held.job, run.settings)
    if source is None or not figures.started:
        return {}
    if source == "aggregator" and report_name(run.name) not in run.observed.jobs:
        return {Condition.REPORT_READY: Statement(False, Reason.REPORT_FAILED, _GONE)}
    return {Condition.REPORT_READY: Statement(False, Reason.REPORT_PENDING)}


# Afterwards.


def follow(raw: Object, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Return what brings the report of a run that has ended nearer to its place."""
    held = effective(raw, observed)
    if held is None or not observed.complete:
        return _said(raw, now, wait=LOOK_AGAIN)
    name, job = report_name(held.job.name), held.job
    made = observed.jobs.get(name)
    if made is None:
        return _first(raw, job, observed, settings, now)
    if made.succeeding:
        return _store(raw, job, made, observed, now)
    if made.failing is not None:
        return _failed(raw, _why(name, made.failing, observed, now), now)
    return _said(raw, now, _trouble(name, observed, now))


def _first(
    raw: Object, job: FederatedIncrementalJob, observed: Observed, settings: Settings, now: datetime
) -> Plan:
    """Make the Job of a record on the checkpoint's volume, when nobody else mounts it any more."""
    if record_source(job, settings) != "checkpoint":
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
    return replace(plan, create=(report_job(job, settings, node=node),))


def _blocked(job: FederatedIncrementalJob, observed: Observed) -> str:
    """Return why the Job may not be made now; empty: it may."""
    name = report_name(job.name)
    if observed.namespace_terminating:
        return "the namespace is being deleted"
    if f"Job/{name}" in observed.foreign:
        return f"Job {name} of this namespace is not this job's and is left alone"
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
    problem = observed.report_problem
    if report is not None:
        problem = observed.refusals.get(name, "")
    if f"ConfigMap/{name}" in observed.foreign:
        return _failed(raw, f"ConfigMap {name} of this namespace is not this job's and is left alone", now)
    if report is None or problem:
        since = min((item.since or now for item in made.conditions.values()), default=now)
        if now - since >= timedelta(seconds=job.spec.report.deadline_seconds):
            return _failed(raw, problem, now)
    if report is None:
        return _said(raw, now, problem, LOOK_AGAIN)
    wanted = report_config_map(job, report.files)
    if differs(wanted, observed.objects.get(f"ConfigMap/{name}")):
        return Plan(apply=(wanted,), wake_after=LOOK_AGAIN if problem else 0.1)
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
    pods = _pods(name, observed)
    ended = [pod.main for pod in pods if pod.main is not None and pod.main.state == "terminated"]
    words = last_words(ended[-1].message) if ended else ""
    if failing.reason == "DeadlineExceeded":
        late = "it took longer than spec.report.deadlineSeconds"
        cause = _trouble(name, observed, now) or words
        return f"{late}: {cause}" if cause else late
    if words:
        return words
    if pods:
        found = explain_pod(pods[-1], SUBJECT, now, observed.nodes)
        if found is not None:
            return _plain(found.message)
    return failing.message or "its pod failed"


def _trouble(name: str, observed: Observed, now: datetime) -> str:
    """Return what keeps the report's pod from running; empty: nothing that is known."""
    refused = observed.refusals.get(name)
    if refused:
        return f"the report's pod cannot be made: {refused}"
    pods = _pods(name, observed)
    if not pods:
        return ""
    pod = pods[-1]
    found = explain_pod(pod, SUBJECT, now, observed.nodes, observed.warnings.get(pod.name, ""))
    return f"the report's pod: {_plain(found.message)}" if found is not None else ""


def _plain(message: str) -> str:
    """Return a finding's message without what would mend a run: this one is over."""
    return without_promise(message.partition(f", or {ANEW}")[0])


def _pods(name: str, observed: Observed) -> list[PodView]:
    pods = [pod for pod in observed.pods if pod.owner == name]
    return sorted(pods, key=lambda pod: (pod.created is not None, pod.created))


def _lives(pod: PodView) -> bool:
    ended = pod.main is not None and pod.main.state == "terminated"
    return pod.phase not in ("Succeeded", "Failed") and not ended


# What is said of it.


def _failed(raw: Object, why: str, now: datetime) -> Plan:
    message = f"{why.rstrip('.')}. The run's result stands."
    return _said_anew(raw, Statement(False, Reason.REPORT_FAILED, message), now)


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
    return Plan(status=status, notes=report_notes(statement))


def report_notes(statement: Statement) -> tuple[Note, ...]:
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
