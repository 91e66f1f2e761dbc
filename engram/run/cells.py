"""Runs a grid: every cell a process of its own, one or several at a time, and one leaderboard at the end.

A cell is an ordinary `engram run` in a directory of its own, so a cell that fails, runs out of memory or is
killed takes no other with it, and can be repeated alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engram.errors import ConfigurationError
from engram.report.compare import comparable_runs, compare, load_record, render_leaderboard_text
from engram.run.checks import check_code, check_together
from engram.run.child import Child
from engram.run.composition import Place, compose
from engram.run.directory import RunDirectory, choose, claim, occupied, write_text
from engram.run.display import GridDisplay
from engram.run.grid import Cell, Grid, describe
from engram.run.recording import write_job
from engram.run.runner import RunOptions, resume_command
from engram.run.source import naming, with_origin
from engram.run.stop import Stop
from engram.run.watch import LineTail
from engram.spec.exit_codes import ExitCode

TICK_SECONDS = 0.1
SUSPEND_SECONDS = 90.0
"""How long a cell may take to save its checkpoint when the grid is interrupted."""


@dataclass
class _State:
    """What became of the cells so far."""

    waiting: deque[Cell]
    total: int
    running: dict[str, tuple[Child, LineTail]] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_grid(grid: Grid, place: Place, options: RunOptions, *, jobs: int, rank: str) -> int:
    """Run every cell and return the exit code: 0 all complete, 1 some failed, 75 interrupted.

    Raises EngramError for everything that is wrong before the first cell starts: all cells are checked, their
    data and code too.
    """
    name = grid.cells[0].job.name
    choice = choose(name, options.out, resume=options.resume, grid=True)
    _check_cells(grid, place, options)
    if not choice.fresh:
        _check_same_cells(grid, choice.directory)
    directory = claim(choice, name)
    with occupied(directory):
        return _carry_out(grid, place, directory, options, fresh=choice.fresh, jobs=jobs, rank=rank)


def _carry_out(
    grid: Grid,
    place: Place,
    directory: RunDirectory,
    options: RunOptions,
    *,
    fresh: bool,
    jobs: int,
    rank: str,
) -> int:
    """Run what is not complete yet and conclude."""
    for note in grid.notes:
        print(f"note: {note}", flush=True)
    print(f"{len(grid.cells)} cells in {directory.path}", flush=True)
    if fresh:
        write_text(directory.grid, json.dumps(_describe(grid), indent=2) + "\n")
    state = _State(deque(), len(grid.cells))
    for cell in grid.cells:
        if not fresh and _is_complete(RunDirectory(directory.path / cell.name)):
            state.finished.append(cell.name)
            print(f"{cell.name}: complete already", flush=True)
        else:
            state.waiting.append(cell)
    stop = Stop()
    with stop.on_signals(), GridDisplay(quiet=options.quiet) as display:
        _run_all(state, directory, place, options, jobs, stop, display)
    if stop() and (state.waiting or state.running):
        command = resume_command(options.command, directory.path)
        print(f"engram: interrupted; continue with: {command}", file=sys.stderr)
        return ExitCode.RETRY
    return _conclude(state, grid, directory, rank)


def _check_cells(grid: Grid, place: Place, options: RunOptions) -> None:
    """Read data, make splits and import code for every cell; equal data settings are checked once."""
    place.open_modules()
    seen: set[str] = set()
    for cell in grid.cells:
        spec = cell.job.spec
        with naming(f"{options.file} with {describe(cell.values)}"):
            check_code(cell.job)
            if options.batched:
                check_together(cell.job)
            key = json.dumps(
                [spec.seed, spec.dataset.dump(), spec.tasks.dump(), [group.dump() for group in spec.workers]]
            )
            if key not in seen:
                seen.add(key)
                compose(cell.job, place)


def _check_same_cells(grid: Grid, directory: RunDirectory) -> None:
    """Refuse to resume a grid with other cells than it was started with."""
    try:
        held = json.loads(directory.grid.read_text(encoding="utf-8"))["cells"]
        known = {str(cell["name"]): str(cell["digest"]) for cell in held}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{directory.grid} cannot be read", field="--resume", remedy="start the grid in another directory"
        ) from error
    for cell in grid.cells:
        if known.get(cell.name, cell.job.digest()) != cell.job.digest():
            raise ConfigurationError(
                f"cell {cell.name} of {directory.path} was another job",
                field="--resume",
                remedy="resume with the job file and options that the grid was started with",
            )


def _describe(grid: Grid) -> dict[str, Any]:
    """Return what `grid.json` keeps."""
    cells = [{"name": cell.name, "values": cell.values, "digest": cell.job.digest()} for cell in grid.cells]
    return {"schema": "engram.grid/v1", "cells": cells}


def _is_complete(directory: RunDirectory) -> bool:
    """Tell whether a cell has nothing left to do; one that lacks its report gets it when it runs again."""
    try:
        return load_record(directory.path).status == "complete" and directory.report.exists()
    except ConfigurationError:
        return False


def _run_all(
    state: _State,
    directory: RunDirectory,
    place: Place,
    options: RunOptions,
    jobs: int,
    stop: Stop,
    display: GridDisplay,
) -> None:
    """Keep `jobs` cells running until all have ended or a stop is asked for."""
    try:
        while state.waiting or state.running:
            while state.waiting and len(state.running) < jobs and not stop():
                _start(state, state.waiting.popleft(), directory, place, options)
            for name in list(state.running):
                _collect(state, name)
            display.show(_where(state))
            if stop():
                _suspend(state, stop)
                return
            stop.wait(TICK_SECONDS)
    finally:
        for child, _ in state.running.values():
            child.close()


def _start(state: _State, cell: Cell, directory: RunDirectory, place: Place, options: RunOptions) -> None:
    """Start a cell: a fresh run, or the continuation of what its directory holds."""
    own = RunDirectory(directory.path / cell.name)
    resume = own.holds_run()
    jobs, logs = directory.path / "jobs", directory.logs
    jobs.mkdir(exist_ok=True)
    logs.mkdir(exist_ok=True)
    job_file = jobs / f"{cell.name}.yaml"
    write_job(job_file, with_origin(cell.job.dump(), place.folder))
    arguments = [
        *("run", str(job_file), "--out", str(own.path), "--transport", options.transport),
        *("--quiet", "--lifeline"),
        "--figures" if options.figures else "--no-figures",
        *(("--batched",) if options.batched else ()),
        *(("--resume",) if resume else ()),
    ]
    child = Child(cell.name, arguments, {"PYTHONUNBUFFERED": "1"}, logs / f"{cell.name}.log")
    child.start()
    state.running[cell.name] = (child, LineTail(own.logs / "aggregator.log"))


def _where(state: _State) -> str:
    """Return the running cells, each with the newest line of its aggregator (which in-process has no log)."""
    cells = []
    for name, (_, tail) in state.running.items():
        tail.read()
        cells.append(f"{name}: {tail.newest or 'running'}")
    done = len(state.finished) + len(state.failed)
    return "; ".join([f"{done} of {state.total} done", *cells])


def _collect(state: _State, name: str) -> None:
    """Note how a cell ended, if it has."""
    child, _ = state.running[name]
    code = child.poll()
    if code is None:
        return
    del state.running[name]
    child.close()
    number = len(state.finished) + len(state.failed) + 1
    if code == ExitCode.DONE:
        state.finished.append(name)
        lines = child.output().strip().splitlines()
        print(f"[{number}/{state.total}] {name}: {lines[-1] if lines else 'complete'}", flush=True)
        return
    message, _ = child.last_words()
    state.failed[name] = message or f"ended with {code}; see {child.log}"
    print(f"[{number}/{state.total}] {name}: FAILED: {state.failed[name]}", flush=True)


def _suspend(state: _State, stop: Stop) -> None:
    """Let running cells save their checkpoints."""
    for child, _ in state.running.values():
        child.terminate()
    deadline = time.monotonic() + SUSPEND_SECONDS
    for child, _ in state.running.values():
        while child.running and not stop.at_once and time.monotonic() < deadline:
            child.wait(TICK_SECONDS)


def _common(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the values that all `cells` have in common: what makes their leaderboard one of its own."""
    first, *others = cells
    return describe(
        {path: value for path, value in first.items() if all(path in c and c[path] == value for c in others)}
    )


def _conclude(state: _State, grid: Grid, directory: RunDirectory, rank: str) -> int:
    """Write and print the leaderboards (one for each set of comparable runs); name what failed."""
    paths = [directory.path / cell.name for cell in grid.cells if cell.name in state.finished]
    sets = comparable_runs(paths) if paths else []
    values = {directory.path / cell.name: cell.values for cell in grid.cells}
    for number, members in enumerate(sets, start=1):
        out = directory.path if len(sets) == 1 else directory.path / f"leaderboard-{number}"
        leaderboard = compare(members, out, rank)
        print()
        if len(sets) > 1:  # other data or tasks: not to be ranked together
            print(f"leaderboard {number} of {len(sets)}: {_common([values[path] for path in members])}")
        print(render_leaderboard_text(leaderboard).rstrip())
        print(f"report: {out / 'report.html'}")
    if state.failed:
        names = "; ".join(f"{name} ({message.splitlines()[0]})" for name, message in state.failed.items())
        print(f"engram: error: {len(state.failed)} of {state.total} cells failed: {names}", file=sys.stderr)
        return ExitCode.FAILURE
    return ExitCode.DONE
