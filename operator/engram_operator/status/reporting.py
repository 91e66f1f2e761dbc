"""What is said of the report: what holds up its pod, and why there is none."""

from __future__ import annotations

from datetime import datetime

from engram.spec.names import Reason
from engram_operator.model import Observed, PodView
from engram_operator.status.conditions import Statement
from engram_operator.status.ends import without_promise
from engram_operator.status.explain import explain_pod
from engram_operator.status.finding import ANEW

SUBJECT = "report"
FOREIGN = "Job {} of this namespace is not this job's and is left alone"


def no_report(why: str) -> Statement:
    """Return ReportReady of a run that has no report, and `why`."""
    return Statement(False, Reason.REPORT_FAILED, f"{why.rstrip('.')}. The run's result stands.")


def trouble_of(name: str, observed: Observed, now: datetime) -> str:
    """Return what keeps the report's pod from running; empty: nothing that is known."""
    refused = observed.refusals.get(name)
    if refused:
        return f"the report's pod cannot be made: {refused}"
    pods = pods_of(name, observed)
    if not pods:
        return ""
    pod = pods[-1]
    found = explain_pod(pod, SUBJECT, now, observed.nodes, observed.warnings.get(pod.name, ""))
    return f"the report's pod: {plain(found.message)}" if found is not None else ""


def plain(message: str) -> str:
    """Return a finding's message without what would mend a run: this one is over."""
    return without_promise(message.partition(f", or {ANEW}")[0])


def pods_of(name: str, observed: Observed) -> list[PodView]:
    """Return the pods of the report's Job, the newest last."""
    pods = [pod for pod in observed.pods if pod.owner == name]
    return sorted(pods, key=lambda pod: (pod.created is not None, pod.created))
