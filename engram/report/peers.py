"""The leaderboard in the report of a job on a cluster: this run beside those of `spec.report.compareWith`.

Whatever keeps another run off it is a note: it was made by others, and this run's own report never depends on
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engram.errors import ConfigurationError
from engram.report.board import leaderboard_html
from engram.report.comparable import Run, differences
from engram.report.compare import leaderboard_texts
from engram.report.leaderboard import build
from engram.report.rank import DEFAULT_RANK, parse_rank
from engram.report.record import Record
from engram.report.reread import reread

PAGE = "leaderboard.html"


@dataclass(frozen=True)
class Comparison:
    """What comes of it."""

    files: Mapping[str, str] = field(default_factory=dict)
    """leaderboard.csv, .json, .md and .html; empty: there is nothing to compare with."""
    notes: tuple[str, ...] = ()


def compare_with(record: Record, name: str, peers: Sequence[Path]) -> Comparison:
    """Return the leaderboard of this run, called `name`, and of the reports in the directories `peers`.

    A directory without a report is that of a job that has none yet.
    """
    if record.status != "complete":
        return Comparison(notes=(f"No leaderboard: this run is {record.status}.",) if peers else ())
    own, notes = Run(Path(name), record), list[str]()
    runs = [own]
    for path in peers:
        found = _peer(own, path)
        if isinstance(found, str):
            notes.append(f"{path.name} is not on the leaderboard: {found}.")
        else:
            runs.append(found)
    if len(runs) == 1:
        return Comparison(notes=tuple(notes))
    leaderboard = build(runs, parse_rank(DEFAULT_RANK))
    page = leaderboard_html(leaderboard, Path().resolve())
    return Comparison({**leaderboard_texts(leaderboard), PAGE: page}, tuple(notes))


def _peer(own: Run, path: Path) -> Run | str:
    """Return another run, or why it cannot stand beside this one."""
    if not (path / "report.json").exists():
        return "it has no report yet, or there is no such job"
    try:
        run = Run(Path(path.name), reread(path))
    except ConfigurationError as error:
        return f"its report {error.problem}"
    if run.record.status != "complete":
        return f"it is {run.record.status}"
    try:
        found = differences(own, run)
        if not found:
            build([own, run], parse_rank(DEFAULT_RANK))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return "its report contradicts itself"
    return f"it differs in {'; '.join(found)}" if found else run
