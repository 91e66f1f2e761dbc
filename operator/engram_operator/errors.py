"""Every exception that the operator raises on purpose.

EngramError
└── OperatorError
    ├── StartError     the operator cannot start: no cluster, no CRD, rights missing; the process ends with it
    ├── ApiError       the API server refused a request or could not be reached
    └── StaleError     what was observed is no longer so: look again at once
"""

from __future__ import annotations

from engram.errors import EngramError

_RETRIED = (401, 408, 409, 410, 429)
"""Answers below 500 that another try may change; all others are the API server's last word."""


class OperatorError(EngramError):
    """Base of the operator's errors."""


class StartError(OperatorError):
    """The operator cannot start; the text is one sentence with the remedy."""


class ApiError(OperatorError):
    """An answer of the API server that is no success.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        reason: `reason` of the Status object, such as AlreadyExists; `Unreachable` when there was no answer.
        causes: reasons in `details.causes`, such as NamespaceTerminating.
    """

    def __init__(self, status: int, reason: str, message: str, causes: tuple[str, ...] = ()) -> None:
        self.status, self.reason, self.message, self.causes = status, reason, message, causes
        super().__init__(message)

    @property
    def refusal(self) -> bool:
        """Whether somebody must act (quota, admission, rights, an invalid object): not a passing fault."""
        if self.status == 500:
            return "admission webhook" in self.message or "failed calling webhook" in self.message
        return 400 <= self.status < 500 and self.status not in _RETRIED


class StaleError(OperatorError):
    """The cluster has moved on since it was observed."""
