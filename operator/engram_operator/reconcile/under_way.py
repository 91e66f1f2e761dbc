"""A job that has started and has not ended: it comes up, runs, rests, or ends now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from engram.spec.names import Condition, Phase, Reason, Role
from engram_operator.manifests.names import aggregation_name, credentials_name, report_name
from engram_operator.model import Credentials, Object, Observed, Plan, PodView, parse_time
from engram_operator.reconcile import record
from engram_operator.reconcile.accept import acceptance
from engram_operator.reconcile.effective import effective
from engram_operator.reconcile.outcome import soonest, with_status
from engram_operator.reconcile.report import notes
from engram_operator.reconcile.run import Run
from engram_operator.reconcile.telling import census_of, content_of
from engram_operator.reconcile.upkeep import SOON, job_patches, keep_up, stale_secrets
from engram_operator.reconcile.verdict import (
    End,
    Later,
    active_deadline,
    pending_deadline,
    verdict,
)
from engram_operator.settings import Settings
from engram_operator.status import Statement, active_seconds, holds, phase_of, view
from engram_operator.status.explain import slow_after
from engram_operator.status.figures import figures_of
from engram_operator.status.finding import CREDENTIALS, Finding
from engram_operator.status.memory_use import with_peaks
from engram_operator.status.refusals import explain_refusal
from engram_operator.status.situation import Situation, quorum_of, statements_of
from engram_operator.status.standing import complete, failed, resting
from engram_operator.status.workers import with_live

LOOK_AGAIN = 30.0
"""Seconds after which a job that cannot be read is looked at again."""
_BEGINNING = datetime.min.replace(tzinfo=UTC)


def plan_under_way(
    raw: Object, credentials: Credentials | None, observed: Observed, settings: Settings, now: datetime
) -> Plan:
    """Return what a run needs now, or how it has ended."""
    held = effective(raw, observed)
    if held is None:
        return Plan(wake_after=LOOK_AGAIN)
    observed = with_peaks(observed, raw.get("status") or {})
    run = Run(raw, held, credentials, observed, settings, now)
    end = verdict(observed.jobs.get(aggregation_name(run.name)), _aggregator_pods(observed), now)
    if isinstance(end, End):
        return _ended(run, end)
    if isinstance(end, Later):
        return Plan(wake_after=end.seconds)
    return _resting(run) if run.rests else _running(run)


def _aggregator_pods(observed: Observed) -> list[PodView]:
    pods = [pod for pod in observed.pods if pod.role == Role.AGGREGATOR]
    return sorted(pods, key=lambda pod: pod.created or _BEGINNING)


# It ends.


def _ended(run: Run, end: End) -> Plan:
    """Return the last status of the run; its pods are cleaned up when that is written, never before."""
    census = census_of(run)
    figures = figures_of(run.status, run.observed.live, end.summary)
    statements = complete(end.message) if end.succeeded else failed(end.reason, end.message)
    active = int(active_seconds(run.status, run.now))
    content = replace(
        content_of(run, census, figures),
        started=parse_time(run.status.get("startTime")) or run.now,
        completed=run.now,
        active_seconds=active,
        resumes=figures.resumes,
    )
    statements = {**statements, **record.at_end(run, figures)}
    workers = {**(content.workers or {}), "running": 0} if end.succeeded else content.workers
    plan = with_status(Plan(wake_after=SOON), run.raw, statements, replace(content, workers=workers), run.now)
    said = statements.get(Condition.REPORT_READY)
    return plan if said is None else replace(plan, notes=(*plan.notes, *notes(said)))


# It rests.


def _resting(run: Run) -> Plan:
    """Return what suspends the Jobs; everything else stays, so that the run can go on."""
    patches = job_patches(run, suspend=True) if run.observed.complete else ()
    accepted = acceptance(run.raw, run.held.job, run.held.notice)
    message = (
        "spec.suspend is true: the pods go, the checkpoint stays; set it to false and the run continues."
        if run.status.get("startTime")
        else "spec.suspend is true."
    )
    was = holds(run.status, Condition.SUSPENDED)
    counted = run.status.get("activeSeconds")
    active = counted if was else int(active_seconds(run.status, run.now))
    census, figures = census_of(run), figures_of(run.status)
    content = replace(
        content_of(run, census, figures),
        started=parse_time(run.status.get("startTime")) or run.now,
        active_seconds=active,
        worker_statuses=(),
    )
    plan = Plan(patch=patches, delete=stale_secrets(run))
    return with_status(plan, run.raw, resting(accepted, message), content, run.now)


# It runs.


def _running(run: Run) -> Plan:
    """Return what keeps the run going, and its status."""
    resumed = holds(run.status, Condition.SUSPENDED)
    census = census_of(run)
    over = record.over(run, census.aggregator)
    # A run whose tasks are done is not failed for the time that its record and a last scrape take.
    extra = record.LINGER_SECONDS + run.held.job.spec.report.grace_seconds if over else 0.0
    deadline = active_deadline(run.held.job, active_seconds(run.status, run.now) - extra)
    if isinstance(deadline, End):
        return _ended(run, deadline)
    pending, overdue = pending_deadline(run.held.job, census, run.now)
    if isinstance(pending, End) and not resumed and not over:
        return _ended(run, pending)
    plan, problem = keep_up(run)
    figures = figures_of(run.status, None if resumed else run.observed.live)
    endpoint = run.endpoint
    census = with_live(census, figures, endpoint, run.now, run.held.job.spec.aggregation)
    situation = Situation(
        census=census,
        figures=figures,
        desired=run.held.desired,
        needed=quorum_of(run.held.job, run.held.desired),
        was_running=phase_of(run.status) in (Phase.RUNNING, Phase.REPORTING),
        durable=run.durable,
        now=run.now,
        nodes=run.observed.nodes,
        extra=(*overdue, *_own_findings(run), *problem),
    )
    findings = situation.findings()
    accepted = acceptance(run.raw, run.held.job, run.held.notice)
    reporting = record.fetching(run, over)
    statements = {**statements_of(situation, accepted, _suspended(run)), **reporting.statements}
    content = replace(
        content_of(run, census, figures),
        started=parse_time(run.status.get("startTime")) or run.now,
        active_seconds=run.status.get("activeSeconds"),
        resumes=figures.resumes + (1 if resumed and run.status.get("startTime") else 0),
    )
    waits: list[float | None] = [
        plan.wake_after,
        deadline.seconds,
        pending.seconds if isinstance(pending, Later) else None,
        situation.stalls_in(findings),
        situation.gone_in() or None,
        *(slow_after(pod, run.now) for pod in run.observed.pods),
    ]
    plan = replace(
        plan,
        create=(*plan.create, *reporting.create),
        delete=(*plan.delete, *reporting.delete),
        wake_after=soonest(waits),
        poll=situation.readable,
    )
    return with_status(plan, run.raw, statements, content, run.now)


def _suspended(run: Run) -> Statement:
    """Return the Suspended condition of a run that does not rest."""
    if run.held.suspend:
        return Statement(
            False,
            Reason.CHECKPOINT_NOT_DURABLE,
            "spec.suspend is refused: the checkpoint lies in an emptyDir and would be lost; the run goes "
            "on. Write spec.aggregator.checkpoint.volume or size in a new job.",
        )
    before = view(run.status, Condition.SUSPENDED)
    resumed = before is not None and (before.true or before.reason == Reason.RESUMED)
    if resumed and run.status.get("startTime"):
        return Statement(False, Reason.RESUMED)
    return Statement(False, Reason.AS_EXPECTED, "The job is not suspended.")


def _own_findings(run: Run) -> tuple[Finding, ...]:
    """Return what is wrong with objects rather than pods."""
    found: list[Finding] = []
    if run.lost and not run.at_rest:
        mend = (
            "set spec.suspend to true and back to false, and it is made anew"
            if run.durable
            else "when a pod is lost the run cannot go on; then delete the job and apply it anew"
        )
        found.append(
            Finding(
                Reason.CREDENTIALS_LOST,
                f"Secret {credentials_name(run.name)} was deleted; running pods go on: {mend}",
                CREDENTIALS,
            )
        )
    # What refuses the report's pod is told by ReportReady: of the run nothing is to be mended.
    jobs = {*run.job_names.values(), report_name(run.name)}
    found.extend(
        explain_refusal(text, name, started=True)
        for name, text in run.observed.refusals.items()
        if name not in jobs
    )
    return tuple(found)
