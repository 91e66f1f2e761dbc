"""Exit codes: the contract between the pods' commands and the failure policies of their Jobs.

Kubernetes sees nothing of a finished container but its code, so the code says whether trying again can help.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

PolicyAction = Literal["FailJob", "FailIndex", "Ignore", "Count"]
"""Actions of a Job's podFailurePolicy."""


class ExitCode(IntEnum):
    """What a process of ours ends with; any other code is a crash."""

    DONE = 0
    FAILURE = 1
    CONFIGURATION = 42
    DATA = 43
    REFUSED = 44
    RETRY = 75


@dataclass(frozen=True)
class ExitMeaning:
    """One row of the contract: what the code says, and what each kind of Job does about it."""

    code: ExitCode
    meaning: str
    aggregator: PolicyAction | None
    """None: the pod succeeded."""
    worker: PolicyAction | None


EXIT_MEANINGS: tuple[ExitMeaning, ...] = (
    ExitMeaning(ExitCode.DONE, "done", None, None),
    ExitMeaning(
        ExitCode.CONFIGURATION,
        "configuration error: the job file, an option or a parameter must change",
        "FailJob",
        "FailJob",
    ),
    ExitMeaning(ExitCode.DATA, "data missing, unreadable, corrupt or unsafe", "FailJob", "FailIndex"),
    ExitMeaning(
        ExitCode.REFUSED,
        "refused by the aggregator: wrong token, version, job or data split",
        "FailJob",
        "FailIndex",
    ),
    ExitMeaning(
        ExitCode.RETRY,
        "try again: the state is saved; also what SIGTERM gives, never 0, which would complete the index",
        "Ignore",
        "Ignore",
    ),
    ExitMeaning(
        ExitCode.FAILURE, "a crash, as any code not named here (137: out of memory)", "Count", "Count"
    ),
)
"""The table, in the order in which a failure policy lists it (DisruptionTarget comes first, as Ignore)."""

OUT_OF_MEMORY = 137
"""128 + SIGKILL: what the kernel's out-of-memory killer leaves behind."""


def meaning_of(code: int) -> str:
    """Return in words what a process of ours that ended with `code` says."""
    for row in EXIT_MEANINGS:
        if row.code == code:
            return row.meaning
    if code > 128:
        return f"killed by signal {code - 128}" + (" (often out of memory)" if code == OUT_OF_MEMORY else "")
    return "crashed"
