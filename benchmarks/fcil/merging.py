"""What becomes of the rows that a file of results holds already.

Rows of another version of the code, or of a variant that was changed since, must not stand beside new ones
unnoticed. The command refuses to start with them, unless it is told to drop them, or to confirm them: then
two runs of each variant are made anew, and all its rows stay when both give the same accuracy matrix, bit for
bit. Runs are deterministic, so a change of code that changes an algorithm's arithmetic shows there. Another
processor gives other last digits; there both codes make these runs, the rows' and today's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.fcil.cells import Cell, Key
from benchmarks.fcil.rows import Row
from benchmarks.fcil.variants import VARIANTS, Benchmark
from engram.errors import ConfigurationError

Run = Callable[[Sequence[Cell]], Mapping[Key, Row]]


@dataclass(frozen=True)
class Held:
    """The rows of a file: those of today's code and table, and the others."""

    fresh: tuple[Row, ...]
    stale: tuple[Row, ...]


def held(benchmark: Benchmark, rows: Iterable[Row]) -> Held:
    """Tell rows that would come out the same today from those that nobody knows that of."""
    fresh, stale = list[Row](), list[Row]()
    for row in rows:
        (fresh if _is_fresh(benchmark, row) else stale).append(row)
    return Held(tuple(fresh), tuple(stale))


def kept(benchmark: Benchmark, rows: Sequence[Row], wanted: set[Key], *, drop: bool) -> list[Row]:
    """Return the rows that stay beside those of `wanted`, which are run anew.

    Raises SystemExit that names the variants of stale rows, unless `drop`.
    """
    found = held(benchmark, [row for row in rows if row.key not in wanted])
    if found.stale and not drop:
        names = "; ".join(sorted({row.algorithm for row in found.stale}))
        raise SystemExit(
            f"the file holds {len(found.stale)} rows of another version of the code or of the variants: "
            f"{names}. Run these again, too (--only), or add --confirm or --drop-stale (see --help)"
        )
    return list(found.fresh)


def confirmed(benchmark: Benchmark, rows: Sequence[Row], run: Run, earlier: Run | None = None) -> list[Row]:
    """Return the rows that are fresh, and those that `run` shows to be; say which are not.

    `earlier` makes runs by the code that made the rows: where it is given, its matrices are compared, and the
    rows' own may come from another processor.
    """
    found = held(benchmark, rows)
    today: dict[str, list[tuple[Row, Cell]]] = defaultdict(list)
    for row in found.stale:
        cell = cell_of(benchmark, row)
        if cell is not None:
            today[row.algorithm].append((row, cell))
    cells = [cell for own in today.values() for _, cell in _ends(own)]
    again: Mapping[Key, Row] = {}
    before: Mapping[Key, Row] = {row.key: row for row in found.stale}
    if cells:
        again = run(cells)
        before = earlier(cells) if earlier is not None else before
    stay = list(found.fresh)
    for name, own in today.items():
        same = all(_alike(row, again[row.key], before.get(row.key)) for row, _ in _ends(own))
        outcome = "stay" if same else "are to be run again"
        print(f"{name}: {len(own)} rows of other code {outcome}", flush=True)
        if same:
            stay += [replace(row, job=cell.digest(), code=cell.code) for row, cell in own]
    return stay


def cell_of(benchmark: Benchmark, row: Row) -> Cell | None:
    """Return what would make the row today; None when the table has no such variant any more."""
    variant = next((variant for variant in VARIANTS if variant.name == row.algorithm), None)
    if variant is None or not variant.known:
        return None
    cell = Cell(benchmark, variant, row.label_ratio, row.seed)
    try:
        cell.job()
    except ConfigurationError:
        return None
    return cell


def check_machine(facts: Mapping[str, Any], here: Any, same: Sequence[str]) -> None:
    """Refuse to add to a file that was measured with other versions or on another processor."""
    for key in same:
        if key in facts and facts[key] != getattr(here, key):
            raise SystemExit(
                f"the file was measured with {key} {facts[key]}, here it is {getattr(here, key)}: "
                "write into another file, or start over with --drop-stale"
            )


def _is_fresh(benchmark: Benchmark, row: Row) -> bool:
    cell = cell_of(benchmark, row)
    return cell is not None and (cell.digest(), cell.code) == (row.job, row.code)


def _alike(row: Row, again: Row, before: Row | None) -> bool:
    """Return whether `again` has the matrix of `before`, which the code behind `row` has made."""
    return before is not None and (before.code, before.matrix) == (row.code, again.matrix)


def _ends(rows: Sequence[tuple[Row, Cell]]) -> list[tuple[Row, Cell]]:
    """Return the rows with the fewest and with the most labels: what they exercise differs most."""
    ordered = sorted(rows, key=lambda pair: (pair[0].label_ratio, pair[0].seed))
    return ordered[:1] if len(ordered) == 1 else [ordered[0], ordered[-1]]
