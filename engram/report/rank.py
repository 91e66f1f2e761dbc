"""Which order a leaderboard is in: `accuracy:descend,forget_rate:ascend`, as Ianvs' `rank.sort_by`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from engram.errors import ConfigurationError

DEFAULT_RANK = "accuracy:descend,forget_rate:ascend"
DIRECTIONS = ("ascend", "descend")

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column:
    """One measured column of a leaderboard; what `--rank` may name."""

    key: str
    title: str
    kind: str
    """share (shown in %), megabytes, seconds."""
    better: str
    """ascend: small is good; descend: large is good."""


COLUMNS: tuple[Column, ...] = (
    Column("accuracy", "Final accuracy", "share", "descend"),
    Column("average_incremental_accuracy", "Average incremental accuracy", "share", "descend"),
    Column("forget_rate", "Forget rate", "share", "ascend"),
    Column("forgetting", "Forgetting", "share", "ascend"),
    Column("backward_transfer", "Backward transfer", "share", "descend"),
    Column("forward_transfer", "Forward transfer", "share", "descend"),
    Column("newest_task_accuracy", "Newest-task accuracy", "share", "descend"),
    Column("intransigence", "Intransigence", "share", "ascend"),
    Column("forget_rate_ianvs", "Forget rate (Ianvs)", "share", "ascend"),
    Column("megabytes_down", "MB down", "megabytes", "ascend"),
    Column("megabytes_up", "MB up", "megabytes", "ascend"),
    Column("cpu_seconds", "CPU seconds", "seconds", "ascend"),
    Column("seconds", "Seconds", "seconds", "ascend"),
)

BY_KEY = {column.key: column for column in COLUMNS}
ALIASES = {"final_accuracy": "accuracy"}


def parse_rank(text: str) -> tuple[tuple[str, str], ...]:
    """Return (metric, direction) pairs in order of weight.

    A metric without a direction gets the one that puts the better first. Raises ConfigurationError for an
    unknown metric (with a suggestion), an unknown direction, or a metric named twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, colon, direction = (piece.strip() for piece in part.partition(":"))
        key = ALIASES.get(name, name).replace("-", "_")
        if key not in BY_KEY:
            close = difflib.get_close_matches(key, BY_KEY, 1, 0.5)
            remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(BY_KEY)}"
            raise ConfigurationError(f"unknown metric '{name}'", field="--rank", remedy=remedy)
        if colon and direction not in DIRECTIONS:
            raise ConfigurationError(
                f"unknown direction '{direction}' of {name}",
                field="--rank",
                remedy=f"write {name}:ascend (small first) or {name}:descend (large first)",
            )
        if key in found:
            raise ConfigurationError(f"'{name}' is there twice", field="--rank", remedy="keep one")
        found[key] = direction or BY_KEY[key].better
    return tuple(found.items())


def ranked(
    rows: Sequence[Row],
    rank: Sequence[tuple[str, str]],
    value: Callable[[Row, str], float | None],
    name: Callable[[Row], str],
) -> list[Row]:
    """Return the rows in order; a value that was not measured comes after all that were; ties go by name."""

    def place(row: Row) -> tuple[tuple[bool, float], ...]:
        places: list[tuple[bool, float]] = []
        for key, direction in rank:
            found = value(row, key)
            signed = 0.0 if found is None else found if direction == "ascend" else -found
            places.append((found is None, signed))
        return tuple(places)

    return sorted(rows, key=lambda row: (place(row), name(row)))
