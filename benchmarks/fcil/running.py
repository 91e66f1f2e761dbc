"""Runs what is missing, by `engram run --vary`, and finds again what was run before.

A folder of results holds pieces: the directory of a grid, and beside it a note of the code that it was run
by. A piece that was interrupted keeps its finished cells; the others are run anew in the next piece.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fcil.cells import Cell, Key, algorithm_of, job_digest
from benchmarks.fcil.code import code_digest
from benchmarks.fcil.rows import Row, row_of
from benchmarks.fcil.variants import ROOT
from engram.errors import ConfigurationError
from engram.report.comparable import load_record
from engram.report.record import Environment, Record
from engram.run.facts import environment
from engram.spec import parse_job

VERSIONS = ("python", "torch", "numpy")
"""Facts that must be equal for runs to stand in one file: other ones give other last digits and times."""
SAME = (*VERSIONS, "cpu")
"""Those that must be for a run to be found again."""

LARGEST = 40
"""Cells of a grid: results are written after each, and a change of code under a grid costs no more."""


@dataclass(frozen=True)
class Piece:
    """Cells that are a product, which one `engram run --vary` runs."""

    cells: tuple[Cell, ...]

    def command(self, out: Path, jobs: int) -> list[str]:
        """Return the command line."""
        first = self.cells[0]
        algorithms = [
            json.dumps(algorithm)
            for algorithm in _distinct(algorithm_of(cell.variant, cell.ratio) for cell in self.cells)
        ]
        ratios = _distinct(cell.ratio for cell in self.cells)
        seeds = _distinct(cell.seed for cell in self.cells)
        fixed = {**first.benchmark.settings, **first.variant.settings}
        command = [sys.executable, "-m", "engram", "run", first.benchmark.job, "--out", str(out)]
        command += ["--transport", "in-process", "--jobs", str(jobs)]
        for path, value in fixed.items():
            command += ["--set", f"{path}={json.dumps(value)}"]
        command += ["--vary", f"dataset.labelRatio={','.join(map(str, ratios))}"]
        command += ["--vary", f"algorithm={','.join(algorithms)}"]
        return [*command, "--vary", f"seed={','.join(map(str, seeds))}"]


def pieces(cells: Sequence[Cell]) -> list[Piece]:
    """Return the cells in grids of one label ratio and up to `LARGEST` cells, or one variant with more."""
    missing: dict[tuple[str, float, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        missing[cell.variant.group, cell.ratio, cell.variant.name].append(cell)
    alike: dict[tuple[str, float, tuple[int, ...]], list[list[Cell]]] = defaultdict(list)
    for (group, ratio, _), own in missing.items():
        alike[group, ratio, tuple(sorted(cell.seed for cell in own))].append(own)
    found: list[Piece] = []
    for (_, _, seeds), variants in alike.items():
        step = max(1, LARGEST // len(seeds))
        for start in range(0, len(variants), step):
            found.append(Piece(tuple(cell for own in variants[start : start + step] for cell in own)))
    return found


def finished(folder: Path, cells: Iterable[Cell], root: Path = ROOT) -> dict[Key, Row]:
    """Return the rows of those cells that were run in `folder`: the same job, by the code at `root`, with the
    same versions on the same processor.
    """
    wanted: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        wanted[cell.digest()].append(cell)
    here, found = environment("", ""), dict[Key, Row]()
    for record, codes in _records(folder):
        if not same_machine(record.environment, here):
            continue
        for cell in wanted.get(_digest(record), ()):
            code = code_digest(cell.variant.algorithm, root)
            if codes.get(cell.variant.algorithm) == code:
                found[cell.key] = row_of(cell, record, code)
    return found


def run(
    folder: Path,
    cells: Sequence[Cell],
    *,
    jobs: int,
    after: Callable[[Mapping[Key, Row]], None] = lambda found: None,
    root: Path = ROOT,
) -> dict[Key, Row]:
    """Run the cells that are not finished in `folder` by the code at `root`; return the rows of all.

    `after` is called with the rows so far when a grid has ended.

    Raises SystemExit when a cell fails, or when the code has changed under a run: its figures belong to no
    version then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = finished(folder, cells, root)
    todo = pieces([cell for cell in cells if cell.key not in found])
    print(f"{len(found)} of {len(cells)} runs are finished; {len(todo)} grids to go", flush=True)
    for piece in todo:
        codes = _codes(piece, root)
        out = _free(folder)
        note = out.with_suffix(".json")
        note.write_text(json.dumps({"code": codes}, indent=1) + "\n", encoding="utf-8")
        status = _carried_out(piece.command(out, jobs), root)
        code_digest.cache_clear()
        if codes != _codes(piece, root):
            note.unlink()
            raise SystemExit(f"the code was changed while {out} ran: its runs do not count; start again")
        found |= finished(folder, cells, root)
        after(found)
        if status:
            needs = piece.cells[0].benchmark.needs
            raise SystemExit(f"the grid ended with {status}" + (f"; it needs {needs}" if needs else ""))
    return found


def same_machine(one: Environment, other: Environment) -> bool:
    """Return whether runs of the two come out the same."""
    return all(getattr(one, key) == getattr(other, key) for key in SAME)


def _codes(piece: Piece, root: Path) -> dict[str, str]:
    names = {cell.variant.algorithm for cell in piece.cells}
    return {name: code_digest(name, root) for name in sorted(names)}


def _carried_out(command: list[str], root: Path) -> int:
    """Run a grid by the code at `root`, passing on a line a cell and what goes wrong. Return its status."""
    # Before the folder of the installed package, which is this checkout.
    its = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, cwd=root, env=its, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("["):
                print(line, end="", flush=True)
    return process.returncode


def _records(folder: Path) -> Iterator[tuple[Record, Mapping[str, str]]]:
    """Yield the record of every finished run, and the digests of code that its piece noted."""
    for note in sorted(folder.glob("piece-*.json")):
        codes = json.loads(note.read_text(encoding="utf-8"))["code"]
        for path in sorted(note.with_suffix("").glob("*/record.json")):
            try:
                record = load_record(path)
            except ConfigurationError:  # of another version of engram, or cut short
                continue
            if record.status == "complete":
                yield record, codes


def _digest(record: Record) -> str:
    """Return the job's digest by today's schema; a job that it refuses fits no cell."""
    try:
        return job_digest(parse_job(record.job))
    except ConfigurationError:
        return ""


def _free(folder: Path) -> Path:
    number = 1
    while (folder / f"piece-{number:03}.json").exists() or (folder / f"piece-{number:03}").exists():
        number += 1
    return folder / f"piece-{number:03}"


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
