"""What a check has found: a line of the table, fine or not, with what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from rich.table import Table
from rich.text import Text

from engram_kubectl.words import printable


class Level(IntEnum):
    """How bad it is; ordered."""

    OK = 0
    WARN = 1
    """It may work, or could not be found out."""
    FAIL = 2
    """The job will not run like this."""


@dataclass(frozen=True)
class Found:
    """One line."""

    level: Level
    subject: str
    """What was looked at, such as `nodes: edge`."""
    said: str
    remedy: str = ""


STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
FAILED = 1
"""Exit code when anything fails."""


def ok(subject: str, said: str) -> Found:
    """Return a line that is fine."""
    return Found(Level.OK, subject, said)


def warn(subject: str, said: str, remedy: str = "") -> Found:
    """Return a line that a person should read."""
    return Found(Level.WARN, subject, said, remedy)


def fail(subject: str, said: str, remedy: str = "") -> Found:
    """Return a line that keeps the job from running."""
    return Found(Level.FAIL, subject, said, remedy)


def unreadable(subject: str, what: str) -> Found:
    """Return the line of what these rights do not let us see."""
    return warn(subject, f"not checked: {what} may not be read with these rights")


def table(findings: Sequence[Found]) -> Table:
    """Return the findings as a table, in their order."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("", no_wrap=True)
    drawn.add_column("WHAT", no_wrap=True)
    drawn.add_column("FOUND", overflow="fold")
    drawn.add_column("WHAT TO DO", overflow="fold")
    for found in findings:
        drawn.add_row(
            Text(found.level.name.lower(), style=STYLES[found.level]),
            Text(printable(found.subject)),
            Text(printable(found.said)),
            Text(printable(found.remedy)),
        )
    return drawn


def summary(findings: Sequence[Found]) -> str:
    """Return the last line: how many of which kind."""
    counts = {level: sum(found.level is level for found in findings) for level in Level}
    said = ", ".join(f"{counts[level]} {level.name.lower()}" for level in Level)
    verdict = "The job would not run." if counts[Level.FAIL] else "Nothing keeps the job from running."
    return f"{said}. {verdict}"


def exit_code(findings: Sequence[Found]) -> int:
    """Return 1 when anything fails, else 0."""
    return FAILED if any(found.level is Level.FAIL for found in findings) else 0
