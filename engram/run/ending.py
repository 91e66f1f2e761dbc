"""How a run ended, the same for both transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engram.errors import EngramError
from engram.run.edge import exit_code
from engram.spec.exit_codes import ExitCode


@dataclass(frozen=True)
class Ending:
    """The end of a run."""

    reason: Literal["complete", "failed", "suspended"]
    message: str = ""
    """One sentence for the user; empty when complete."""
    exit_code: int = ExitCode.DONE
    restarts: Mapping[str, int] = field(default_factory=dict)
    """Process -> times it was started again."""
    devices: Mapping[str, str] = field(default_factory=dict)
    """Worker -> device, as far as known."""

    @classmethod
    def of_error(cls, error: EngramError) -> Ending:
        """Return the failure that an error of this process amounts to."""
        return cls("failed", str(error), exit_code(error, typed=True))
