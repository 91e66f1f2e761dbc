"""The record of a run that comes to its end: fetched while the aggregator serves it, or kept for later.

Complete and Failed do not wait for the report, and it changes neither: a result stands without one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engram.spec.names import Condition, Phase, Reason, Role
from engram_operator.manifests.names import report_name
from engram_operator.manifests.record import record_source
from engram_operator.manifests.report import report_job
from engram_operator.model import JobView, Object, Observed, Removal
from engram_operator.reconcile.run import Run
from engram_operator.status import Statement, Statements, phase_of, view
from engram_operator.status.census import Member
from engram_operator.status.figures import Figures
from engram_operator.status.reporting import FOREIGN, no_report, trouble_of

LINGER_SECONDS = 120.0
"""How long an aggregator that is done may take for a last scrape and its end, beside graceSeconds."""

_GONE = (
    "the run's record lay in an emptyDir and went with the aggregator's pod before a report was made of it; "
    "in a new job give spec.aggregator.checkpoint a volume or size, or a longer spec.report.graceSeconds"
)


def over(run: Run, aggregator: Member) -> Phase | None:
    """Return how the aggregator says that the run has ended; None: it goes on, or its pod is in trouble.

    Between the aggregator's last answer and the verdict on its Job it stays as it was said.
    """
    pod = aggregator.pod
    if aggregator.state not in ("running", "done") or pod is None or pod.deleting is not None:
        return None
    if run.observed.live is not None:
        said = run.observed.live.status.get("phase")
        return next((phase for phase in (Phase.SUCCEEDED, Phase.FAILED) if phase == said), None)
    if phase_of(run.status) is Phase.REPORTING:
        before = view(run.status, Condition.PROGRESSING)
        return Phase.SUCCEEDED if before and before.reason == Reason.FINISHED else Phase.FAILED
    return Phase.SUCCEEDED if aggregator.state == "done" else None


@dataclass(frozen=True)
class Fetching:
    """What is made, removed and said for the record to be fetched; all empty while the run goes on."""

    create: tuple[Object, ...] = ()
    delete: tuple[Removal, ...] = ()
    statements: Statements = field(default_factory=dict)


def fetching(run: Run, ended: Phase | None) -> Fetching:
    """Return what an aggregator needs that waits for its record to be fetched; `ended` is what `over` said.

    Nothing where the record is read later from the checkpoint.
    """
    job, name, live = run.held.job, report_name(run.name), run.observed.live
    if record_source(job) != "aggregator":
        return Fetching()
    made = run.observed.jobs.get(name)
    if ended is None:
        return _taken_back(run, made) if live is not None else Fetching()
    served = phase_of(run.status) is Phase.REPORTING if live is None else live.status.get("recordServed")
    if served is not True:
        return Fetching()  # its record is not ready yet, or went with a pod that ended unheard
    blocked = run.observed.namespace_terminating or f"Job/{name}" in run.observed.foreign
    reason, done = (
        (Reason.FINISHED, "All tasks are done.")
        if ended is Phase.SUCCEEDED
        else (Reason.RUN_FAILED, "The run has failed.")
    )
    trouble = trouble_of(name, run.observed, run.now)
    said = {
        Condition.PROGRESSING: Statement(False, reason, done),
        Condition.REPORT_READY: Statement(
            False,
            Reason.REPORT_PENDING,
            trouble or f"{done} The report's pod fetches the record from the aggregator.",
        ),
    }
    if blocked or made is not None:
        return Fetching((), (), said)
    job_of_report = report_job(job, run.settings, image=image_of(run.observed), peers=run.observed.peers)
    return Fetching((job_of_report,), (), said)


def image_of(observed: Observed) -> str:
    """Return the image that the aggregator ran last; empty: its pods are gone."""
    pods = [pod for pod in observed.pods if pod.role == Role.AGGREGATOR]
    return max(pods, key=lambda pod: (pod.created is not None, pod.created)).image if pods else ""


def _taken_back(run: Run, made: JobView | None) -> Fetching:
    """An aggregator that lost its pod at the end starts over: the record that counts is still to come."""
    said = view(run.status, Condition.REPORT_READY) is not None
    return Fetching(
        delete=(Removal("Job", made.name, made.uid),) if made is not None and not made.deleting else (),
        statements={Condition.REPORT_READY: None} if said else {},
    )


def at_end(run: Run, figures: Figures) -> Statements:
    """Return what ReportReady says when the run ends; nothing of a run that has nothing to report."""
    source, name = record_source(run.held.job), report_name(run.name)
    if source is None or not figures.started:
        return {}
    if source == "checkpoint" or name in run.observed.jobs:
        return {Condition.REPORT_READY: Statement(False, Reason.REPORT_PENDING)}
    why = FOREIGN.format(name) if f"Job/{name}" in run.observed.foreign else _GONE
    return {Condition.REPORT_READY: no_report(why)}
