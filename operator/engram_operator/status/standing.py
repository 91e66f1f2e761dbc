"""A job that does not run: not accepted, at rest, or at its end, as conditions."""

from __future__ import annotations

from engram.spec.names import Condition, Reason
from engram_operator.status.conditions import Statement, Statements
from engram_operator.status.finding import Finding

_FINE = Statement(False, Reason.AS_EXPECTED)
_NOT_COMPLETE = Statement(False, Reason.NOT_COMPLETE)
_NOT_FAILED = Statement(False, Reason.NOT_FAILED)
_NOT_SUSPENDED = Statement(False, Reason.AS_EXPECTED, "The job is not suspended.")
_NOBODY = Statement(False, Reason.WAITING_FOR_AGGREGATOR)


def invalid(message: str) -> Statements:
    """A field is wrong. Failed is True, so that `kubectl wait` ends, until the job is mended and applied
    again.

    Nothing has started, `completionTime` stays unset, and so this Failed is not terminal.
    """
    wrong = Statement(True, Reason.INVALID_SPEC, message)
    return {**refused(Reason.INVALID_SPEC, message), Condition.FAILED: wrong}


def refused(reason: Reason, message: str) -> Statements:
    """The job is valid and cannot start before a person does something."""
    no, yes = Statement(False, reason, message), Statement(True, reason, message)
    return {
        Condition.ACCEPTED: no,
        Condition.WORKERS_READY: _NOBODY,
        Condition.PROGRESSING: no,
        Condition.DEGRADED: _FINE,
        Condition.SUSPENDED: _NOT_SUSPENDED,
        Condition.COMPLETE: _NOT_COMPLETE,
        Condition.FAILED: _NOT_FAILED,
        Condition.READY: no,
        Condition.RECONCILING: no,
        Condition.STALLED: yes,
    }


def coming(accepted: Statement) -> Statements:
    """The job is accepted and its first objects are being made."""
    waiting = Statement(False, Reason.WAITING_FOR_AGGREGATOR)
    return {
        Condition.ACCEPTED: accepted,
        Condition.WORKERS_READY: _NOBODY,
        Condition.PROGRESSING: waiting,
        Condition.DEGRADED: _FINE,
        Condition.SUSPENDED: _NOT_SUSPENDED,
        Condition.COMPLETE: _NOT_COMPLETE,
        Condition.FAILED: _NOT_FAILED,
        Condition.READY: waiting,
        Condition.RECONCILING: Statement(True, Reason.WAITING_FOR_AGGREGATOR),
        Condition.STALLED: _FINE,
    }


def resting(accepted: Statement, message: str) -> Statements:
    """The job is suspended."""
    no = Statement(False, Reason.SUSPENDED, message)
    return {
        Condition.ACCEPTED: accepted,
        Condition.WORKERS_READY: no,
        Condition.PROGRESSING: no,
        Condition.DEGRADED: _FINE,
        Condition.SUSPENDED: Statement(True, Reason.SUSPENDED, message),
        Condition.COMPLETE: _NOT_COMPLETE,
        Condition.FAILED: _NOT_FAILED,
        Condition.READY: no,
        Condition.RECONCILING: no,
        Condition.STALLED: _FINE,
    }


def complete(message: str) -> Statements:
    """The run is over and succeeded."""
    yes, no = Statement(True, Reason.FINISHED, message), Statement(False, Reason.FINISHED, message)
    return {
        Condition.WORKERS_READY: no,
        Condition.PROGRESSING: no,
        Condition.DEGRADED: _FINE,
        Condition.SUSPENDED: _NOT_SUSPENDED,
        Condition.COMPLETE: yes,
        Condition.FAILED: _NOT_FAILED,
        Condition.READY: yes,
        Condition.RECONCILING: no,
        Condition.STALLED: _FINE,
    }


def failed(reason: Reason, message: str) -> Statements:
    """The run is over and failed. What was Degraded stays said: it is often the cause."""
    yes, no = Statement(True, reason, message), Statement(False, reason, message)
    return {
        Condition.WORKERS_READY: no,
        Condition.PROGRESSING: no,
        Condition.SUSPENDED: _NOT_SUSPENDED,
        Condition.COMPLETE: _NOT_COMPLETE,
        Condition.FAILED: yes,
        Condition.READY: no,
        Condition.RECONCILING: no,
        Condition.STALLED: yes,
    }


def held(accepted: Statement, finding: Finding) -> Statements:
    """The job is valid, and the API server takes none of its objects."""
    no = Statement(False, finding.reason, finding.sentence)
    return {
        **coming(accepted),
        Condition.PROGRESSING: no,
        Condition.READY: Statement(False, Reason.WAITING_FOR_AGGREGATOR, finding.sentence),
        Condition.DEGRADED: Statement(True, finding.reason, finding.sentence),
        Condition.STALLED: Statement(True, finding.reason, finding.sentence),
    }
