"""Every exception that engram raises on purpose, so that a process edge catches exactly one base class.

    EngramError                     exit 1
    ├── ConfigurationError          exit 42   the job file, an option or a parameter must change
    │   ├── NumericalError          exit 42   a loss is not finite; says where, and what to lower
    │   ├── MemoryShortageError     exit 42   the process cannot have the memory that it needs
    │   └── PortTakenError          exit 42   somebody else listens on the port
    ├── DataError                   exit 43   data are missing, unreadable, corrupt or unsafe
    ├── RefusedError                exit 44   the aggregator refused this worker (token, version, job, split)
    ├── RetryError                  exit 75   interrupted with the state saved: start again and it continues
    │   └── ContactLostError        exit 75   no contact with the aggregator for runPolicy.orphanSeconds
    ├── CheckpointError             exit 42   a checkpoint cannot be written or read; the one before is kept
    └── FederationError             exit 1    the run cannot go on (backoff limit, deadline)
        ├── QuorumError             exit 42   too few workers at a deadline, with deadlinePolicy Fail
        └── ProtocolError           exit 1    bytes that are no message of ours

`engram run` and the other commands that a person types report bad input of every kind, data included, with
exit code 42; the pods' commands (`engram aggregator`, `worker` and `reporter`) use the codes above, which the
operator's failure policies read. Several errors share a code; `reason` tells them apart
(`engram.spec.last_word`).
"""

from __future__ import annotations


class EngramError(Exception):
    """Base of all engram errors: a sentence to act on; `exit_code` is what the process ends with."""

    exit_code: int = 1
    reason: str = ""
    """Value of the `engram.spec.reasons.Reason` that a process leaves for this error; empty: the exit code
    says enough."""


class ConfigurationError(EngramError):
    """Something that the user wrote must change.

    The text reads `FILE: FIELD: PROBLEM: REMEDY` with the parts that are known; `field` is a path as in the
    file, such as `spec.tasks.count`.
    """

    exit_code = 42
    reason = "ConfigurationError"

    def __init__(self, problem: str, *, field: str = "", file: str = "", remedy: str = "") -> None:
        self.problem, self.field, self.file, self.remedy = problem, field, file, remedy
        super().__init__(": ".join(part for part in (file, field, problem, remedy) if part))

    def within(self, file: str) -> ConfigurationError:
        """Return the same error naming `file`, for a caller that knows where the text came from."""
        return type(self)(self.problem, field=self.field, file=self.file or file, remedy=self.remedy)


class NumericalError(ConfigurationError):
    """A loss or an update that is not finite: names the worker, the task and round, and what to lower."""

    reason = "NumericalError"


class MemoryShortageError(ConfigurationError):
    """The process cannot have the memory that it needs: says for what, and what to lower."""

    reason = "OutOfMemory"


class PortTakenError(ConfigurationError):
    """Somebody else listens on the port that this process is to listen on."""

    reason = "PortTaken"


class DataError(EngramError):
    """Data that are missing, unreadable, corrupt or unsafe to read: says which file, what to put where."""

    exit_code = 43
    reason = "DataError"


class RefusedError(EngramError):
    """The aggregator refused this worker for good: wrong token, version, job or split digest."""

    exit_code = 44
    reason = "WorkerRefused"


class RetryError(EngramError):
    """The process was told to stop or lost its peer for too long; its state is saved."""

    exit_code = 75


class ContactLostError(RetryError):
    """A worker has had no contact with the aggregator for too long; its state is saved."""

    reason = "AggregatorUnreachable"


class CheckpointError(EngramError):
    """A checkpoint cannot be written (disk full) or read (corrupt, other job); the previous one is kept."""

    exit_code = 42
    reason = "CheckpointFailed"


class FederationError(EngramError):
    """The run cannot go on: too many failures, or a deadline passed."""


class QuorumError(FederationError):
    """Fewer workers than the quorum at a deadline, with `aggregation.deadlinePolicy: Fail`.

    Not tried again: that is what the policy asks for.
    """

    exit_code = 42
    reason = "QuorumNotReached"


class ProtocolError(FederationError):
    """Bytes from the network that are not a message of this protocol version."""
