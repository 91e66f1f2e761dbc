"""Why a process of ours ended, as its last word says it to a program and to `kubectl describe pod`.

A worker leaves one line, `REASON: SENTENCE`; the aggregator leaves a FinalSummary with a `reason` of its own.
Several failures share an exit code, which is all that Kubernetes acts on; the reason tells them apart. It
counts only with the code that belongs to it: the last line of a crash begins with the name of its exception,
and other libraries have a DataError as well. A last word without a reason (an older image, the end of a log)
is explained by its exit code alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from engram.spec.exit_codes import ExitCode
from engram.spec.reasons import Reason

CODES: Mapping[Reason, ExitCode] = {
    Reason.CONFIGURATION_ERROR: ExitCode.CONFIGURATION,
    Reason.NUMERICAL_ERROR: ExitCode.CONFIGURATION,
    Reason.CHECKPOINT_FAILED: ExitCode.CONFIGURATION,
    Reason.OUT_OF_MEMORY: ExitCode.CONFIGURATION,
    Reason.PORT_TAKEN: ExitCode.CONFIGURATION,
    Reason.DATA_ERROR: ExitCode.DATA,
    Reason.WORKER_REFUSED: ExitCode.REFUSED,
    Reason.AGGREGATOR_UNREACHABLE: ExitCode.RETRY,
    Reason.QUORUM_NOT_REACHED: ExitCode.CONFIGURATION,
}
"""Reasons that a process leaves, and the exit code that it leaves with each."""


def reason_of(name: str, code: int) -> Reason | None:
    """Return the reason called `name`, where a process that ended with `code` may leave it; else None."""
    known = {str(reason): reason for reason, fitting in CODES.items() if fitting == code}
    return known.get(name)


def compose(reason: str, sentence: str) -> str:
    """Return a worker's last word, on one line."""
    return ": ".join(part for part in (reason, " ".join(sentence.split())) if part)


def read(line: str, code: int) -> tuple[Reason | None, str]:
    """Return the reason and the sentence of a worker's last word; None: it names no reason."""
    name, colon, sentence = line.partition(": ")
    reason = reason_of(name if colon else line, code)
    return (reason, sentence) if reason is not None else (None, line)
