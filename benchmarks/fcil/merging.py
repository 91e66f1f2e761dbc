"""What becomes of the rows that a file of results holds already.

Rows of another version of the code, or of a variant that was changed since, must not stand beside new ones
unnoticed. The command refuses to start with them, unless it is told to drop them, or to confirm them: then
two runs of each variant are made anew, and all its rows stay when both give the same accuracy matrix, bit for
bit. Runs are deterministic, so a change of code that changes an algorithm's arithmetic shows there. Another
processor gives other last digits; there both codes make these runs, the rows' and today's.

For the same reason rows whose differences are taken, those of a group of variants, are of one processor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.fcil.cells import Cell, Key
from benchmarks.fcil.rows import Row
from benchmarks.fcil.variants import VARIANTS, Benchmark, group_of
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


def kept(benchmark: Benchmark, rows: Sequence[Row], wanted: set[Key], cpu: str, *, drop: bool) -> list[Row]:
    """Return the rows that stay beside those of `wanted`, which are run anew on the processor `cpu`.

    Raises SystemExit that names the variants of stale rows and of rows of another processor, unless `drop`.
    """
    found = held(benchmark, [row for row in rows if row.key not in wanted])
    if not drop:
        check_processor(found.fresh, wanted, cpu)
    if found.stale and not drop:
        raise SystemExit(
            f"the file holds {len(found.stale)} rows of another version of the code or of the variants: "
            f"{_names(found.stale)}. Run these again, too (--only), or add --confirm or --drop-stale (see "
            "--help)"
        )
    return beside(found.fresh, wanted, cpu)


def beside(rows: Iterable[Row], wanted: set[Key], cpu: str) -> list[Row]:
    """Return the rows that may stand beside runs of `wanted` on the processor `cpu`."""
    rows = list(rows)
    others = {row.key for row in _elsewhere(rows, wanted, cpu)}
    return [row for row in rows if row.key not in others]


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


def settled(rows: Sequence[Row], cells: Sequence[Cell], cpu: str) -> tuple[list[Row], list[Cell]]:
    """Return which of the rows stay and which of the cells are run on the processor `cpu`: those without a
    row, and those whose row may not stay beside them.
    """
    stay = list(rows)
    while True:
        known = {row.key for row in stay}
        todo = [cell for cell in cells if cell.key not in known]
        fit = beside(stay, {cell.key for cell in todo}, cpu)
        if len(fit) == len(stay):
            return stay, todo
        stay = fit


def check_versions(facts: Mapping[str, Any], here: Any, same: Sequence[str]) -> None:
    """Refuse to add to a file that was measured with other versions."""
    for key in other_versions(facts, here, same):
        raise SystemExit(
            f"the file was measured with {key} {facts[key]}, here it is {getattr(here, key)}: "
            "write into another file, or start over with --drop-stale"
        )


def other_versions(facts: Mapping[str, Any], here: Any, same: Sequence[str]) -> list[str]:
    """Return which of the facts `same` a file has otherwise than `here`."""
    return [key for key in same if key in facts and facts[key] != getattr(here, key)]


def check_processor(rows: Iterable[Row], wanted: set[Key], cpu: str) -> None:
    """Refuse to put runs of `wanted` on `cpu` beside rows of another processor, of the same group."""
    others = _elsewhere(rows, wanted, cpu)
    if others:
        raise SystemExit(
            f"{len(others)} rows that these runs are compared with were measured on {others[0].cpu}, here it "
            f"is {cpu}: {_names(others)}. Run these again, too (--only, --ratios), or write into another "
            "file, or drop them (--drop-stale)"
        )


def check_confirmable(benchmark: Benchmark, rows: Iterable[Row], cpu: str) -> None:
    """Refuse to compare matrices of other code with those of runs on another processor."""
    others = [row for row in held(benchmark, rows).stale if row.cpu != cpu]
    if others:
        raise SystemExit(
            f"rows to be confirmed were measured on {others[0].cpu}, here it is {cpu}: {_names(others)}. Add "
            "--made-by with a checkout of the code that made them, or drop them (--drop-stale)"
        )


def _elsewhere(rows: Iterable[Row], wanted: set[Key], cpu: str) -> list[Row]:
    """Return the rows of another processor that are in a group of `wanted` and not of `wanted` themselves."""
    groups = {group_of(algorithm) for _, algorithm, _, _ in wanted}
    return [
        row for row in rows if row.cpu != cpu and row.key not in wanted and group_of(row.algorithm) in groups
    ]


def _names(rows: Iterable[Row]) -> str:
    return "; ".join(sorted({row.algorithm for row in rows}))


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
