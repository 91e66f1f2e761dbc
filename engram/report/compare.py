"""Compare runs: read their records, refuse what must not be ranked, write one leaderboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from engram.errors import ConfigurationError
from engram.report.board import (
    leaderboard_csv,
    leaderboard_html,
    leaderboard_markdown,
    render_leaderboard_text,
)
from engram.report.comparable import RECORD, Run, comparable_sets, load_record, require_comparable
from engram.report.leaderboard import Leaderboard, build
from engram.report.rank import DEFAULT_RANK, parse_rank
from engram.report.reread import REPORT, reread

__all__ = [
    "Leaderboard",
    "comparable_runs",
    "compare",
    "is_fetched",
    "leaderboard_texts",
    "load_record",
    "render_leaderboard_text",
]


def compare(run_dirs: Sequence[Path], out: Path, rank: str = DEFAULT_RANK) -> Leaderboard:
    """Write leaderboard.json, leaderboard.csv, leaderboard.md and report.html into `out`.

    Runs that differ by the seed alone become one row with mean, standard error and n. Runs that are not
    complete are named and take no part. Raises ConfigurationError for an unreadable record, a wrong `rank`,
    runs whose data or task split differ other than by seed, or when no run is complete; nothing is written
    then. A directory without a record may hold a report that was fetched from a cluster.
    """
    order = parse_rank(rank)
    runs = _load(run_dirs)
    finished = [run for run in runs if run.record.status == "complete"]
    if not finished:
        states = ", ".join(f"{run.path} is {run.record.status}" for run in runs) or "no directory was given"
        raise ConfigurationError(
            f"there is no complete run to compare: {states}",
            remedy="finish one with `engram run ... --resume`",
        )
    require_comparable(finished)
    leaderboard = build(runs, order)
    files = {**leaderboard_texts(leaderboard), "report.html": leaderboard_html(leaderboard, out.resolve())}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
    return leaderboard


def leaderboard_texts(leaderboard: Leaderboard) -> dict[str, str]:
    """Return the leaderboard's files by name, but for its page."""
    return {
        "leaderboard.json": json.dumps(leaderboard.dump(), indent=2, allow_nan=False) + "\n",
        "leaderboard.csv": leaderboard_csv(leaderboard),
        "leaderboard.md": leaderboard_markdown(leaderboard),
    }


def comparable_runs(run_dirs: Sequence[Path]) -> list[list[Path]]:
    """Return the directories in sets that may be ranked together, for a grid that varies the data itself."""
    return [[run.path for run in members] for members in comparable_sets(_load(run_dirs))]


def _load(run_dirs: Sequence[Path]) -> list[Run]:
    found: dict[Path, Run] = {}
    for path in run_dirs:
        record = reread(path) if is_fetched(path) else load_record(path)
        found.setdefault(path.resolve(), Run(path, record))
    return list(found.values())


def is_fetched(path: Path) -> bool:
    """Return whether a directory is that of a report which was fetched from a cluster, without its record."""
    return (path / REPORT).is_file() and not (path / RECORD).exists()
