"""A finding: one thing that is not fine, in a sentence with its cause and its mend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from engram.spec.names import Reason
from engram_operator.status.conditions import shorten

AGGREGATOR = "aggregator"
"""Subject of findings about the aggregator."""
CREDENTIALS = "credentials"
"""Subject of findings about the Secret."""
OBJECTS = "objects"
"""Subject of findings about other objects."""

ANEW = "delete the job and apply it anew"
"""How a field of a job that has started is changed: not at all (CEL, SpecChangeIgnored)."""

WORST_FIRST: tuple[Reason, ...] = (
    Reason.AGGREGATOR_NODE_LOST,
    Reason.CREDENTIALS_LOST,
    Reason.CONFIGURATION_ERROR,
    Reason.NUMERICAL_ERROR,
    Reason.CHECKPOINT_FAILED,
    Reason.INVALID_SPEC,
    Reason.DATA_ERROR,
    Reason.WORKER_REFUSED,
    Reason.POD_SECURITY_VIOLATION,
    Reason.QUOTA_EXCEEDED,
    Reason.NAMESPACE_TERMINATING,
    Reason.NAME_CONFLICT,
    Reason.PORT_TAKEN,
    Reason.POD_REFUSED,
    Reason.IMAGE_UNUSABLE,
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_NOT_CREATED,
    Reason.MOUNT_FAILED,
    Reason.UNSCHEDULABLE,
    Reason.OUT_OF_MEMORY,
    Reason.AGGREGATOR_RESTARTING,
    Reason.QUORUM_NOT_REACHED,
    Reason.PENDING_DEADLINE_EXCEEDED,
    Reason.GPU_NOT_ADMITTED,
    Reason.WORKER_FAILED,
    Reason.UPDATES_REJECTED,
    Reason.AGGREGATOR_UNREACHABLE,
    Reason.NODE_OFFLINE,
    Reason.DELETION_WAITS,
    Reason.POD_EVICTED,
    Reason.WORKER_RESTARTING,
    Reason.WORKER_DISCONNECTED,
    Reason.ROUND_DEGRADED,
)
"""What the Degraded condition names first when several things are wrong: what needs a person, then the
rest."""

NEEDS_A_PERSON = frozenset(WORST_FIRST[: WORST_FIRST.index(Reason.UNSCHEDULABLE) + 1])
"""Nothing but a change by a person mends these; Stalled when they hold up the run."""

MOST_OTHERS = 5
"""Other things that are wrong which one message names; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not fine."""

    reason: Reason
    message: str
    """Cause and mend, without the subject."""
    subject: str = AGGREGATOR
    """`AGGREGATOR`, a worker's name, or a worker group."""
    since: datetime | None = None
    final: bool = False
    """Whether it stays as it is: nothing is tried again."""

    @property
    def sentence(self) -> str:
        """Who, why, and what to do."""
        return f"{self.subject}: {self.message}"


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, worst reason first, those of the aggregator before those of workers."""
    rank = {reason: place for place, reason in enumerate(WORST_FIRST)}
    last = len(rank)
    return tuple(
        sorted(
            findings,
            key=lambda found: (rank.get(found.reason, last), found.subject != AGGREGATOR),
        )
    )


def summarise(findings: Sequence[Finding]) -> str:
    """Return the worst finding's sentence and who else is not fine; `findings` are sorted, at least one."""
    first, *others = findings
    names = list(dict.fromkeys(found.subject for found in others if found.subject != first.subject))
    if not names:
        return first.sentence
    shown = ", ".join(names[:MOST_OTHERS])
    more = f" and {len(names) - MOST_OTHERS} more" if len(names) > MOST_OTHERS else ""
    return f"{shorten(first.sentence, 600)} (not fine either: {shown}{more})"
