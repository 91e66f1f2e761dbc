"""The aggregator's last word: the result of a run, small enough for a pod's termination message.

The kubelet keeps at most 4,096 bytes of the file a container leaves; the operator finds them in the pod's
status, so a result needs no network, no volume and no log. What does not fit is left out, the least needed
first: the accuracy matrix, then the tasks, then the end of the message.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from engram.spec.base import Spec

TERMINATION_MESSAGE_BYTES = 4096
"""What the kubelet keeps of a termination message."""

Outcome = Literal["complete", "failed", "suspended"]


class FinalSummary(Spec):
    """How a run ended and what came out, in the shapes and formats of `status`.

    Keys that a later version adds are ignored, so that an operator reads what a newer image leaves.
    """

    model_config = ConfigDict(extra="ignore")

    outcome: Outcome = Field(description="complete, failed, or suspended with a checkpoint.")
    reason: str = Field(
        "", max_length=64, description="Why it failed, as in conditions; empty: the exit code says enough."
    )
    message: str = Field("", description="One sentence: why, and what to do; empty when complete.")
    exit_code: int = Field(0, ge=0, le=255, description="What the process ends with.")
    metrics: dict[str, str] = Field(default_factory=dict, description="As status.metrics: decimal strings.")
    tasks: list[dict[str, Any]] = Field(default_factory=list, description="As status.tasks.")
    display: dict[str, str] = Field(default_factory=dict, description="As status.display.")
    progress: dict[str, Any] = Field(default_factory=dict, description="As status.progress.")
    rounds: int = Field(0, ge=0, description="Rounds that were closed.")
    resumes: int = Field(0, ge=0, description="Times that the run continued from a checkpoint.")
    workers: dict[str, int] = Field(default_factory=dict, description="As status.workers.")
    matrix: list[list[float | None]] | None = Field(
        None, description="R[t][k], accuracy on task k after task t; null where nothing was tested."
    )

    def encode(self, limit: int = TERMINATION_MESSAGE_BYTES) -> str:
        """Return one line of compact JSON of at most `limit` bytes of UTF-8."""
        smaller = self.model_copy(update={"matrix": None})
        smallest = smaller.model_copy(update={"tasks": []})
        for candidate in (self, smaller, smallest):
            text = _line(candidate)
            if len(text.encode()) <= limit:
                return text
        return _line(smallest.model_copy(update={"message": _shortened(smallest, limit)}))

    @classmethod
    def decode(cls, text: str) -> FinalSummary | None:
        """Return the last line of `text` that is a summary, None when there is none.

        With `FallbackToLogsOnError` the kubelet gives the end of the log, so that anything may stand around.
        """
        for line in reversed(text.splitlines()):
            candidate = line.strip()
            if not (candidate.startswith("{") and '"outcome"' in candidate):
                continue
            try:
                return cls.model_validate_json(candidate)
            except ValidationError:
                continue
        return None


def _line(summary: FinalSummary) -> str:
    return json.dumps(
        summary.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )


def _shortened(summary: FinalSummary, limit: int) -> str:
    """Return as much of the message's beginning as fits, by halving: escapes make some letters longer."""
    low, high = 0, len(summary.message)
    while low < high:
        middle = (low + high + 1) // 2
        text = _line(summary.model_copy(update={"message": _cut(summary.message, middle)}))
        low, high = (middle, high) if len(text.encode()) <= limit else (low, middle - 1)
    return _cut(summary.message, low)


def _cut(message: str, length: int) -> str:
    return message if length >= len(message) else message[: max(0, length - 1)] + "…" * bool(length)
