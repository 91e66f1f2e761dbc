"""Recovery times of faults, as `benchmarks/faults.py` wants them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engram.spec.names import Reason
from tests.e2e.training import Told, Training


@dataclass
class Row:
    """One fault as it was measured."""

    fault: str
    reason: Reason | None
    """What the status says meanwhile; None: nothing is wrong."""
    told_seconds: float | None
    """From the fault until the status said so."""
    next_round_seconds: float
    """From the fault until rounds closed again."""
    mended_seconds: float | None
    """From the fault until somebody had mended the cause, the node was Ready again; None: nobody had to."""
    outcome: str


@dataclass
class Report:
    """The rows of this session."""

    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        fault: str,
        outcome: str,
        training: Training,
        since: float,
        told: Told | None = None,
        mended: float | None = None,
        *,
        stops: bool = True,
        same: bool = True,
    ) -> None:
        """Add what `training` has gone through, once it has succeeded; `same`: with the undisturbed matrix.

        `since` and `mended` are points in time. Where the fault `stops` the training, the longest time
        without a closed round is its doing; else the first round after it tells.
        """
        again = training.standstill(since)[1] if stops else training.recording.closed(since)[0]
        words = ", ".join(filter(None, ("Succeeded", outcome, "same matrix" if same else "other matrix")))
        row = Row(
            fault,
            told.reason if told else None,
            told.seconds if told else None,
            again - since,
            None if mended is None else mended - since,
            words,
        )
        self.rows.append(row)

    def write(self, path: Path) -> None:
        """Write the rows as JSON."""
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            row.update({key: round(value, 1) for key, value in row.items() if isinstance(value, float)})
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
