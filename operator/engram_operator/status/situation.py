"""A run under way: what its pods, its aggregator and its Jobs say, put into conditions.

Pure: every question that the conditions answer is a small function of a `Situation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from engram.spec.job import FederatedIncrementalJob
from engram.spec.names import Condition, Reason
from engram.spec.validation import sampled_workers
from engram_operator.model import NodeView
from engram_operator.status.census import Census, Member
from engram_operator.status.conditions import Statement, Statements
from engram_operator.status.explain import offline_since
from engram_operator.status.figures import Figures
from engram_operator.status.finding import (
    AGGREGATOR,
    NEEDS_A_PERSON,
    Finding,
    by_severity,
    summarise,
)

STALLS_AFTER = timedelta(seconds=60)
"""What may pass by itself (a full cluster, a registry that hesitates) calls for a person after so long."""
GONE_AFTER = timedelta(seconds=60)
"""A pod so long past its end on a node that nobody can ask about is taken for lost."""
NOT_COMPLETE = Statement(False, Reason.NOT_COMPLETE)
NOT_FAILED = Statement(False, Reason.NOT_FAILED)


@dataclass(frozen=True)
class Situation:
    """A run that has started and has not ended."""

    census: Census
    figures: Figures
    desired: int
    needed: int
    """Workers that a round cannot do without."""
    was_running: bool
    """Whether it had come up before."""
    durable: bool
    """Whether the checkpoint outlives the aggregator's pod."""
    now: datetime
    nodes: Sequence[NodeView] | None = None
    extra: tuple[Finding, ...] = ()
    """What the caller knows: credentials that are lost."""

    @property
    def aggregator_up(self) -> bool:
        """Whether the aggregator's pod serves."""
        member = self.census.aggregator
        return member.state == "running" and member.pod is not None and member.pod.ready

    @property
    def running(self) -> bool:
        """Whether the run has come up: enough pods run, or a round has begun. It stays so until it rests.

        Pods that are going say nothing: after a rest cut short they are still those from before it.
        """
        if self.was_running:
            return True
        if not _stays(self.census.aggregator):
            return False
        there = sum(worker.state == "done" or _stays(worker) for worker in self.census.workers)
        enough = self.aggregator_up and there >= self.needed
        return enough or (self.figures.live and self.figures.started)

    @property
    def readable(self) -> bool:
        """Whether what the aggregator says of itself is of this run, not of one before a rest."""
        return self.aggregator_up and (self.was_running or _stays(self.census.aggregator))

    def findings(self) -> tuple[Finding, ...]:
        """Return everything that is not fine, worst first."""
        aggregator = self._aggregator_finding()
        census = replace(self.census, aggregator=replace(self.census.aggregator, finding=None))
        own = (aggregator,) if aggregator else ()
        return by_severity([*own, *census.findings(), *self.extra, *self._quorum()])

    def blocking(self, findings: Sequence[Finding]) -> Finding | None:
        """Return the worst of `findings` that holds up the run; None: it goes on or comes up without them."""
        for found in findings:
            if found.subject == AGGREGATOR and found.reason in NEEDS_A_PERSON:
                return found
        if self._capable(findings) >= self.needed:
            return None
        return next((found for found in findings if found.reason in NEEDS_A_PERSON or found.final), None)

    def stalled(self, findings: Sequence[Finding]) -> Finding | None:
        """Return what a person must mend for the run to go on; None: nothing, or it may pass by itself."""
        found = self.blocking(findings)
        if found is None:
            return None
        lasting = found.final or found.since is None or self.now - found.since >= STALLS_AFTER
        return found if lasting else None

    def stalls_in(self, findings: Sequence[Finding]) -> float | None:
        """Return the seconds after which `stalled` changes its mind by itself."""
        found = self.blocking(findings)
        if found is None or found.final or found.since is None:
            return None
        left = min(STALLS_AFTER, found.since + STALLS_AFTER - self.now).total_seconds()
        return left if left > 0 else None

    def gone_in(self) -> float | None:
        """Return the seconds until the aggregator's pod, told to go, is taken for lost; None: it stays."""
        pod = self.census.aggregator.pod
        if pod is None or pod.deleting is None or pod.phase in ("Succeeded", "Failed"):
            return None
        return max(0.0, (pod.deleting + GONE_AFTER - self.now).total_seconds())

    def _capable(self, findings: Sequence[Finding]) -> int:
        """Return how many workers can take part, now or soon."""
        helpless = {found.subject for found in findings if found.reason in NEEDS_A_PERSON or found.final}
        return sum(
            member.state != "lost"
            and member.name not in helpless
            and not (member.state == "absent" and f"group {member.group}" in helpless)
            for member in self.census.workers
        )

    def _aggregator_finding(self) -> Finding | None:
        member = self.census.aggregator
        pod, found = member.pod, member.finding
        going = self.gone_in()
        if pod is not None and going is not None and (going == 0 or offline_since(pod, self.nodes)):
            return Finding(
                Reason.AGGREGATOR_NODE_LOST,
                f"node {pod.node} is gone and the pod stays Terminating; it is not replaced, since the "
                "old one might still write the checkpoint: delete the node, or taint it "
                "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
                since=pod.deleting,
                final=True,
            )
        if not self.was_running or self.aggregator_up or member.state == "done" or self.figures.ended:
            return found
        if found is not None and found.reason is not Reason.POD_EVICTED:
            return found
        again = "continues from its checkpoint" if self.durable else "starts again from round 1"
        cause = f" ({found.message.split(';')[0]})" if found else ""
        return Finding(
            Reason.AGGREGATOR_RESTARTING,
            f"its pod was lost{cause}; Kubernetes makes a new one, which {again}, and workers reconnect",
        )

    def _quorum(self) -> tuple[Finding, ...]:
        """A round waits for workers: told only where the aggregator counts somebody as silent."""
        figures = self.figures
        silent = int(figures.counts.get("disconnected") or 0)
        there = figures.connected + self.census.count("done")
        if not (figures.live and figures.started and silent) or figures.ended or there >= self.needed:
            return ()
        message = (
            f"{there} of {self.needed} workers that a round needs are connected: the round waits; bring "
            "workers back, or lower aggregation.quorum in a new job"
        )
        return (Finding(Reason.QUORUM_NOT_REACHED, message),)


def _stays(member: Member) -> bool:
    """Return whether a member has a pod that runs and was not told to go."""
    return member.state == "running" and member.pod is not None and member.pod.deleting is None


def quorum_of(job: FederatedIncrementalJob, workers: int) -> int:
    """Return how many of `workers` a round cannot do without: the quorum over those that it asks."""
    spec = job.spec
    everybody = max(1, sum(group.replicas for group in spec.workers))
    asked = max(1, min(workers, math.ceil(sampled_workers(spec) * workers / everybody - 1e-9)))
    quorum, buffer = spec.aggregation.quorum, spec.aggregation.buffer.size
    asked = min(asked, buffer) if buffer else asked
    if isinstance(quorum, str) and quorum.endswith("%"):
        wanted = math.ceil(float(quorum[:-1]) / 100 * asked - 1e-9)
    else:
        wanted = int(quorum)
    return max(1, min(wanted, asked))


def statements_of(situation: Situation, accepted: Statement, suspended: Statement) -> Statements:
    """Return the conditions of a run under way."""
    findings = situation.findings()
    progressing = _progressing(situation, findings)
    stalled = situation.stalled(findings)
    return {
        Condition.ACCEPTED: accepted,
        Condition.WORKERS_READY: _workers_ready(situation, findings),
        Condition.PROGRESSING: progressing,
        Condition.DEGRADED: Statement(True, findings[0].reason, summarise(findings))
        if findings
        else Statement(False, Reason.AS_EXPECTED),
        Condition.SUSPENDED: suspended,
        Condition.COMPLETE: NOT_COMPLETE,
        Condition.FAILED: NOT_FAILED,
        Condition.READY: Statement(False, *_coming(situation)),
        Condition.RECONCILING: Statement(True, *_coming(situation)),
        Condition.STALLED: Statement(True, stalled.reason, stalled.sentence)
        if stalled
        else Statement(False, Reason.AS_EXPECTED),
    }


def _coming(situation: Situation) -> tuple[Reason, str]:
    """Return what the run is busy with."""
    figures = situation.figures
    if situation.running:
        progress = figures.progress
        if figures.consolidating and situation.was_running:  # the first thing told of a run is that it trains
            where = f"Task {progress.get('task')} of {progress.get('tasks')} has ended"
            return Reason.CONSOLIDATING, f"{where}: workers send what the algorithm keeps of it."
        if figures.started:
            where = (
                f"Task {progress.get('task')} of {progress.get('tasks')}, "
                f"round {progress.get('round')} of {progress.get('rounds')}."
            )
            return Reason.TRAINING, where
        return Reason.TRAINING, "Aggregator and workers run."
    if not situation.aggregator_up:
        return Reason.WAITING_FOR_AGGREGATOR, ""
    there = situation.census.count("running", "done")
    return (
        Reason.WAITING_FOR_WORKERS,
        f"{there} of {situation.desired} workers run; the first round needs {situation.needed}.",
    )


def _progressing(situation: Situation, findings: Sequence[Finding]) -> Statement:
    if situation.running:
        return Statement(True, *_coming(situation))
    found = next((found for found in findings if Condition.PROGRESSING in found.reason.conditions), None)
    if found is not None:
        return Statement(False, found.reason, summarise(findings) if found is findings[0] else found.sentence)
    return Statement(False, *_coming(situation))


def _workers_ready(situation: Situation, findings: Sequence[Finding]) -> Statement:
    figures, census = situation.figures, situation.census
    there = figures.connected if figures.live else census.count("running")
    done = census.count("done")
    if there + done >= situation.desired:
        what = "connected" if figures.live else "running"
        return Statement(
            True, Reason.ALL_CONNECTED, f"{there + done} of {situation.desired} workers are {what}."
        )
    found = next(
        (
            found
            for found in findings
            if found.subject != AGGREGATOR and Condition.WORKERS_READY in found.reason.conditions
        ),
        None,
    )
    if found is not None:
        return Statement(False, found.reason, found.sentence)
    if not situation.aggregator_up and not figures.live:
        return Statement(False, Reason.WAITING_FOR_AGGREGATOR)
    return Statement(
        False, Reason.WAITING_FOR_WORKERS, f"{there + done} of {situation.desired} workers are there."
    )
