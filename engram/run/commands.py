"""What stands behind the commands of `engram.cli` that are more than one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from engram.errors import ConfigurationError
from engram.run.composition import Place
from engram.run.directory import RUNS, RunDirectory, free_name
from engram.run.grid import apply_sets, expand
from engram.run.runner import RunOptions, Transport, run_job
from engram.run.source import load_mapping, naming, place_of
from engram.spec import parse_job


@dataclass(frozen=True)
class RunRequest:
    """`engram run` as it was typed."""

    file: Path
    out: Path | None
    transport: str
    varies: tuple[str, ...]
    sets: tuple[str, ...]
    resume: bool
    jobs: int
    rank: str
    port: int
    quiet: bool
    batched: bool
    figures: bool | None
    """None: where there is one run."""
    command: tuple[str, ...]


def run_command(request: RunRequest) -> int:
    """Run the job, or the grid when anything is varied; return the exit code."""
    from engram.report.rank import parse_rank

    parse_rank(request.rank)
    if request.batched and request.transport != "in-process":
        raise ConfigurationError(
            "workers that train together live in one process",
            field="--batched",
            remedy="add --transport in-process, or leave --batched out",
        )
    mapping = load_mapping(request.file)
    options = RunOptions(
        transport=cast("Transport", request.transport),
        file=str(request.file),
        out=request.out,
        resume=request.resume,
        port=request.port,
        quiet=request.quiet,
        batched=request.batched,
        figures=not request.varies if request.figures is None else request.figures,
        command=request.command,
    )
    if not request.varies:
        job = parse_job(apply_sets(mapping, request.sets), options.file)
        with naming(options.file):
            return run_job(job, place_of(job, request.file), options)
    from engram.run.cells import run_grid

    if request.port:
        raise ConfigurationError(
            "a grid has many aggregators", field="--port", remedy="leave --port out with --vary"
        )
    Place(request.file.resolve().parent).open_modules()
    with naming(options.file):
        grid = expand(mapping, request.sets, request.varies, options.file)
    place = place_of(grid.cells[0].job, request.file)
    return run_grid(grid, place, options, jobs=request.jobs, rank=request.rank)


def cluster_report(job: str, runs: Sequence[Path], out: Path | None, context: str, kubeconfig: str) -> int:
    """Fetch the report of a job that ended on a cluster; return the exit code."""
    from engram.run.plugin import run_plugin

    if not job:
        raise ConfigurationError(
            "names a cluster and no job of it",
            field="--context" if context else "--kubeconfig",
            remedy="add --cluster NAMESPACE/NAME",
        )
    if runs:
        raise ConfigurationError(
            "fetches the report of one job, beside which no RUN can stand",
            field="--cluster",
            remedy="fetch it, then compare: engram report DIR DIR",
        )
    options = {"out": str(out or ""), "context": context, "kubeconfig": kubeconfig}
    return run_plugin("report", [job], options)


def report_command(runs: Sequence[Path], rank: str, out: Path | None) -> int:
    """Write the report of one run, or the leaderboard of several; print where it is."""
    from engram.report.compare import compare, is_fetched, load_record, render_leaderboard_text
    from engram.report.rank import parse_rank
    from engram.report.render import write_report

    if not runs:
        raise ConfigurationError(
            "there is nothing to report",
            field="RUN",
            remedy="name a run directory, or a job on a cluster with --cluster NAMESPACE/NAME",
        )
    parse_rank(rank)
    paths = [path for given in runs for path in _runs_of(given)]
    one_grid = len(runs) == 1 and RunDirectory(runs[0]).grid.exists()
    if len(paths) == 1 and len(runs) == 1 and not one_grid:
        if is_fetched(paths[0]):
            raise ConfigurationError(
                "is the report of a job on a cluster, and whole",
                file=str(paths[0]),
                remedy="open its report.html, or name more runs to compare it with",
            )
        print(f"report: {write_report(out or paths[0], load_record(paths[0]))}")
        return 0
    target = out or (runs[0] if one_grid else free_name(RUNS / "leaderboard"))
    leaderboard = compare(paths, target, rank)
    print(render_leaderboard_text(leaderboard).rstrip())
    print(f"report: {target / 'report.html'}")
    return 0


def _runs_of(path: Path) -> list[Path]:
    """Return the run directory itself, or the cells of a grid's directory."""
    if not RunDirectory(path).grid.exists():
        return [path]
    return sorted(cell for cell in path.iterdir() if RunDirectory(cell).record.exists())
